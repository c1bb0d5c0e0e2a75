"""The networks themselves: shapes and sizes of the papers, names, normalisation, layers and
heads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mu.backbones.vision.layers import head, layers_in_order
from mu.backbones.vision.networks import (
    assign_image_weights,
    build,
    image_network,
    published_statistics,
    resolve,
)
from mu.backbones.vision.normalisation import STATISTICS, ImageNetwork, Normalize, statistics
from mu.backbones.vision.resnet_cifar import ResNetCIFAR, option_a_shortcut, resnet18_cifar
from mu.utils.errors import InputError
from mu.utils.weights import load_weights

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.mark.parametrize(
    ("depth", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)]
)
def test_cifar_resnets_have_the_papers_sizes(depth: int, parameters: int) -> None:
    """Table 6 of arXiv 1512.03385 says 0.27, 0.46, 0.66 and 0.85 M."""
    network = build(f"resnet{depth}_cifar", 10)
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) + 1 == depth


@pytest.mark.parametrize(("size", "channels", "out_channels"), [(8, 4, 8), (7, 3, 6), (5, 2, 5)])
def test_option_a_shortcut_equals_a_hand_loop(size: int, channels: int, out_channels: int) -> None:
    x = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    before = (out_channels - channels) // 2
    half = -(-size // 2)
    expected = torch.zeros(2, out_channels, half, half)
    for b in range(2):
        for c in range(channels):
            for i in range(half):
                for j in range(half):
                    expected[b, before + c, i, j] = x[b, c, 2 * i, 2 * j]
    assert torch.equal(option_a_shortcut(x, out_channels, 2), expected)
    assert option_a_shortcut(x, channels, 1) is x


def test_a_block_adds_its_shortcut_before_the_last_relu() -> None:
    """With the second norm at zero a block is the ReLU of its shortcut."""
    block = ResNetCIFAR(8).layer2[0]
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x), option_a_shortcut(x, 32, 2).relu())


def test_initial_weights_have_kaiming_variance() -> None:
    torch.manual_seed(0)
    network = build("resnet20_cifar", 10)
    weight = network.layer3[1].conv1.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("size", [8, 9, 32])
def test_small_and_odd_images_pass(size: int) -> None:
    assert build("resnet8_cifar", 7, in_channels=1, width=4)(
        torch.rand(2, 1, size, size)
    ).shape == (2, 7)


def test_channels_last_changes_no_logit() -> None:
    network = image_network("resnet8_cifar", 10, mean="cifar10").eval()
    x = torch.rand(3, 3, 16, 16)
    expected = network(x)
    network.to(memory_format=torch.channels_last)
    got = network(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_resnet18_cifar_is_torchvisions_with_another_stem() -> None:
    from torchvision.models import resnet18

    ours = resnet18_cifar(10)
    torchvision_network = resnet18(num_classes=10)
    shapes = {name: value.shape for name, value in torchvision_network.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        **shapes,
        "conv1.weight": torch.Size([64, 3, 3, 3]),
    }
    assert sum(weight.numel() for weight in ours.parameters()) == 11_173_962
    features: list[Tensor] = []
    ours.layer4.register_forward_hook(lambda *arguments: features.append(arguments[2]))
    ours.eval()(torch.rand(1, 3, 32, 32))
    assert features[0].shape[-2:] == (4, 4)  # three strides of 2 and no more


def test_a_wrong_depth_is_refused() -> None:
    with pytest.raises(InputError, match=r"6n \+ 2.*not 18"):
        ResNetCIFAR(18)


def test_names_are_looked_up_in_order() -> None:
    assert resolve("resnet20_cifar") == ("mu", "resnet20_cifar")
    assert resolve("resnet10t") == ("timm", "resnet10t")
    assert resolve("resnet18.a1_in1k") == ("timm", "resnet18.a1_in1k")
    assert resolve("torchvision:resnet18") == ("torchvision", "resnet18")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet21_cifar", "did you mean .*resnet20_cifar"),
        ("timm:resnt18", "'timm:resnt18' in timm; did you mean timm:resnet18"),
        ("torchvision:resnet10t", "in torchvision; did you mean torchvision:resnet"),
        ("hub:resnet18", "one of mu, timm, torchvision"),
        ("fasterrcnn_resnet50_fpn", "there is no network"),  # a detector, not a classifier
    ],
)
def test_unknown_names_are_answered_with_close_ones(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        build(name, 10)


@pytest.mark.parametrize("name", ["resnet8_cifar", "timm:resnet10t", "torchvision:resnet18"])
def test_unknown_options_are_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(InputError, match="colour"):
        build(name, 10, colour=3)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(InputError, match="no weights are published for 'resnet20_cifar'"):
        build("resnet20_cifar", 10, pretrained=True)
    with pytest.raises(InputError, match="at least one class"):
        build("resnet20_cifar", 0)
    with pytest.raises(InputError, match="take 3 channels, not 1"):
        build("torchvision:resnet18", 10, in_channels=1, pretrained=True)


def test_torchvision_networks_take_other_channels_and_give_plain_logits() -> None:
    assert build("torchvision:resnet18", 5, in_channels=1).train()(
        torch.rand(2, 1, 32, 32)
    ).shape == (2, 5)
    logits = build("torchvision:googlenet", 5).train()(torch.rand(2, 3, 64, 64))
    assert isinstance(logits, Tensor) and logits.shape == (2, 5)


def test_pretrained_passes_through_to_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation that must fail it: `pretrained` not handed on, or mean and std not taken from timm's
    config.
    """
    import timm

    seen: dict[str, object] = {}
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: object) -> nn.Module:
        seen["pretrained"] = pretrained
        return create(name, False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    network = image_network("timm:resnet10t", 10, pretrained=True)
    assert seen["pretrained"] is True
    torch.testing.assert_close(network.normalize.mean, torch.tensor(STATISTICS["imagenet"][0]))
    assert network.input_size == (3, 176, 176)
    chosen = image_network("timm:resnet10t", 10, pretrained=True, mean="cifar10")
    assert float(chosen.normalize.mean[0]) == pytest.approx(0.4914)
    mean, _, size = published_statistics(
        "timm:resnet10t", build("timm:resnet10t", 10, in_channels=1)
    )
    assert mean == [pytest.approx(0.449)] and size[0] == 1


def test_pretrained_torchvision_networks_get_a_new_head(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    seen: dict[str, object] = {}
    get_model = torchvision.models.get_model

    def offline(name: str, weights: object, **options: object) -> nn.Module:
        seen["weights"] = weights
        return get_model(name, weights=None, **options)

    monkeypatch.setattr(torchvision.models, "get_model", offline)
    network = image_network("torchvision:resnet18", 5, pretrained=True)
    assert seen["weights"] == "DEFAULT"
    assert head(network)[1].out_features == 5
    assert network.input_size == (3, 224, 224)
    torch.testing.assert_close(network.normalize.std, torch.tensor(STATISTICS["imagenet"][1]))


def test_published_weights_that_cannot_be_fetched_are_said_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import timm

    def offline(*arguments: object, **options: object) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"no route to host.*check the connection"):
        build("timm:resnet10t", 10, pretrained=True)


def test_normalisation_is_inside_and_saved() -> None:
    network = image_network("resnet8_cifar", 10, mean="cifar10", width=4)
    assert {"normalize.mean", "normalize.std"} <= network.state_dict().keys()
    x = torch.rand(2, 3, 4, 4)
    mean, std = STATISTICS["cifar10"]
    expected = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(network.normalize(x), expected)
    assert not list(network.normalize.parameters())


@pytest.mark.parametrize(
    ("mean", "std", "channels", "sentence"),
    [
        ("cifar11", None, 3, "no mean is known for 'cifar11'"),
        ("cifar10", None, 1, "do not fit images of 1 channels"),
        ([0.5], None, 1, "std None"),
        (None, [0.5], 1, "needs a mean in numbers"),
        ([0.5, 0.5], [0.5], 2, "one number for each channel"),
    ],
)
def test_wrong_statistics_are_refused(
    mean: object, std: list[float] | None, channels: int, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        statistics(mean, std, channels)


def test_statistics_and_channels_are_checked() -> None:
    assert statistics("none", None, 2) == ([0.0, 0.0], [1.0, 1.0]) == statistics(None, None, 2)
    with pytest.raises(InputError, match="positive std"):
        Normalize([0.5], [0.0])
    with pytest.raises(
        InputError, match="1 channels and the network takes 3; set in_channels to 1"
    ):
        image_network("resnet8_cifar", 10)(torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize(
    "name",
    [
        "resnet8_cifar",
        "resnet18_cifar",
        "resnet10t",
        "vit_tiny_patch16_224",
        "torchvision:mobilenet_v3_small",
    ],
)
def test_layers_partition_the_parameters(name: str) -> None:
    network = image_network(name, 3)
    layers = layers_in_order(network)
    grouped = [id(weight) for _, layer in layers for weight in layer.parameters()]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(weight) for weight in network.parameters()}
    path, linear = head(network)
    assert layers[-1][0] == path and layers[-1][1] is linear is network.get_submodule(path)
    assert linear.out_features == 3


def test_layers_go_from_input_to_output_each_with_its_norm() -> None:
    network = build("resnet8_cifar", 10)
    layers = layers_in_order(network)
    assert [name for name, _ in layers] == [
        "conv1",
        "layer1.0.conv1",
        "layer1.0.conv2",
        "layer2.0.conv1",
        "layer2.0.conv2",
        "layer3.0.conv1",
        "layer3.0.conv2",
        "linear",
    ]
    last = layers[-2][1]
    assert isinstance(last, nn.ModuleList)
    assert list(last) == [network.layer3[0].conv2, network.layer3[0].bn2]


def test_a_scale_behind_the_last_layer_belongs_to_it() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.norm = nn.LayerNorm(2)

    network = nn.Sequential(nn.Linear(2, 2), Scaled())
    [(name, layer)] = layers_in_order(network)
    assert name == "0" and {id(weight) for weight in layer.parameters()} == {
        id(w) for w in network.parameters()
    }


def test_a_network_without_linear_head_is_refused() -> None:
    with pytest.raises(InputError, match="SqueezeNet does not end in one linear layer"):
        head(build("torchvision:squeezenet1_1", 10))


def test_weights_bring_their_normalisation() -> None:
    source = image_network("resnet8_cifar", 10, mean="svhn", width=4)
    metadata = {
        "mean": source.normalize.mean.tolist(),
        "std": source.normalize.std.tolist(),
        "input_size": [3, 8, 8],
    }
    network = image_network("resnet8_cifar", 10, width=4)
    assign_image_weights(
        network, source.body.state_dict(), metadata, "file.pt", keep_normalisation=False
    )
    assert torch.equal(network.normalize.mean, source.normalize.mean)
    assert network.input_size == (3, 8, 8)


def test_a_chosen_normalisation_must_be_that_of_the_weights() -> None:
    """Mutation that must fail it: drop the file's mean and std without a comparison."""
    source = image_network("resnet8_cifar", 10, mean="svhn", width=4)
    tensors = source.body.state_dict()
    chosen = image_network("resnet8_cifar", 10, mean="cifar10", width=4)
    before = chosen.body.conv1.weight.clone()
    metadata = {"mean": source.normalize.mean.tolist(), "std": source.normalize.std.tolist()}
    with pytest.raises(InputError, match=r"file\.pt was trained with mean \[0\.4377.* to null"):
        assign_image_weights(chosen, tensors, metadata, "file.pt", keep_normalisation=True)
    assert torch.equal(chosen.body.conv1.weight, before)
    rounded = {"mean": [0.491, 0.482, 0.447], "std": [0.247, 0.244, 0.262]}
    assign_image_weights(chosen, tensors, rounded, "file.pt", keep_normalisation=True)
    assert float(chosen.normalize.mean[0]) == pytest.approx(0.4914)
    assert torch.equal(chosen.body.conv1.weight, source.body.conv1.weight)


def test_weights_without_normalisation_warn() -> None:
    network = image_network("resnet8_cifar", 10, width=4)
    with pytest.warns(UserWarning, match=r"file\.pt does not say how its images were normalised"):
        assign_image_weights(
            network, network.body.state_dict(), {}, "file.pt", keep_normalisation=False
        )


def test_a_normalisation_for_other_channels_is_refused_before_anything_is_copied() -> None:
    network = image_network("resnet8_cifar", 10, in_channels=1, width=4)
    before = network.body.conv1.weight.clone()
    tensors = {name: value + 1 for name, value in network.body.state_dict().items()}
    with pytest.raises(InputError, match=r"file\.pt is for 3 channels and the network takes 1"):
        metadata = {"mean": [0.0] * 3, "std": [1.0] * 3}
        assign_image_weights(network, tensors, metadata, "file.pt", keep_normalisation=False)
    assert torch.equal(network.body.conv1.weight, before)


@pytest.mark.data
@pytest.mark.slow
def test_published_resnet20_has_its_published_accuracy() -> None:
    """91.73 % on the 10,000 test images: parameter names, shortcut and normalisation are all right,
    or it would not be.

    Needs `../shared/data/cifar10_resnet/resnet20.safetensors` and `../shared/data/cifar10/` beside
    the repository.
    """
    sheet = SHARED / "cifar10" / "test.webp"
    file = SHARED / "cifar10_resnet" / "resnet20.safetensors"
    if not sheet.exists() or not file.exists():
        pytest.skip(f"needs {sheet} and {file}")
    from PIL import Image

    pixels = np.asarray(Image.open(sheet).convert("RGB"))
    tiles = pixels.reshape(100, 32, 100, 32, 3).swapaxes(1, 2).reshape(10_000, 32, 32, 3)
    labels = torch.from_numpy(np.load(SHARED / "cifar10" / "labels.npz")["test"].astype(np.int64))
    network: ImageNetwork = image_network("resnet20_cifar", 10, mean="imagenet").eval()
    tensors, metadata = load_weights(file)
    assign_image_weights(network, tensors, metadata, file, keep_normalisation=True)
    network.to(memory_format=torch.channels_last)
    right = 0
    with torch.inference_mode():
        for start in range(0, 10_000, 500):
            images = (
                torch.from_numpy(tiles[start : start + 500].copy()).permute(0, 3, 1, 2).float()
                / 255
            )
            right += int((network(images).argmax(1) == labels[start : start + 500]).sum())
    # two images may stand on a boundary that rounding moves
    assert right == pytest.approx(9173, abs=2)
