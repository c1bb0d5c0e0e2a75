"""Reading weights: every form that people share, and every broken one answered by one sentence that
names the file.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mu.backbones.vision.networks import build, image_network
from mu.backbones.vision.normalisation import ImageNetwork
from mu.utils.errors import InputError
from mu.utils.weights import assign_weights, load_weights, read_checkpoint, weights_hash


class Tiny(nn.Module):
    def __init__(self, classes: int = 3, channels: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.bn(self.conv(x)).mean((2, 3)))


class Payload:
    """An object that proves by its side effect that it was unpickled."""

    ran: list[str] = []  # noqa: RUF012

    def __reduce__(self) -> tuple[object, ...]:
        return Payload.ran.append, ("unpickled",)


@pytest.fixture
def tiny() -> Tiny:
    torch.manual_seed(0)
    network = Tiny()
    network(torch.rand(4, 2, 5, 5))  # moves BatchNorm's statistics off their initial values
    return network.eval()


def same(tensors: dict[str, Tensor], network: nn.Module) -> bool:
    state = network.state_dict()
    return tensors.keys() == state.keys() and all(
        torch.equal(tensors[name], state[name]) for name in state
    )


def prefixed(prefix: str, network: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in network.state_dict().items()}


@pytest.mark.parametrize("nested", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("suffix", ["pt", "pth", "bin", "ckpt"])
def test_torch_files_round_trip(
    tiny: Tiny, tmp_path: Path, nested: str | None, suffix: str
) -> None:
    file = tmp_path / f"weights.{suffix}"
    state = tiny.state_dict()
    torch.save({nested: state, "epoch": 7, "best": 0.5} if nested else state, file)
    tensors, metadata = load_weights(file)
    assert same(tensors, tiny) and metadata == {}


def test_the_old_torch_format_round_trips(tiny: Tiny, tmp_path: Path) -> None:
    torch.save(
        {"state_dict": tiny.state_dict()}, tmp_path / "old.th", _use_new_zipfile_serialization=False
    )
    assert same(load_weights(tmp_path / "old.th")[0], tiny)


@pytest.mark.parametrize(
    "wrapper", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.model."]
)
def test_wrappers_are_stripped(tiny: Tiny, tmp_path: Path, wrapper: str) -> None:
    save_file(prefixed(wrapper, tiny), tmp_path / "weights.safetensors")
    assert same(load_weights(tmp_path / "weights.safetensors")[0], tiny)


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    network = nn.ModuleDict({"model": nn.Linear(2, 2), "module": nn.Linear(2, 2)})
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    assert same(load_weights(tmp_path / "weights.pt")[0], network)


def test_safetensors_metadata_are_read(tiny: Tiny, tmp_path: Path) -> None:
    stored = {
        "mean": "[0.1, 0.2]",
        "std": "[1, 2]",
        "input_size": "[2, 5, 5]",
        "num_classes": "3",
        "note": "hello",
    }
    save_file(tiny.state_dict(), tmp_path / "weights.safetensors", metadata=stored)
    tensors, metadata = load_weights(tmp_path / "weights.safetensors")
    assert same(tensors, tiny)
    assert metadata == {
        "mean": [0.1, 0.2],
        "std": [1.0, 2.0],
        "input_size": [2, 5, 5],
        "num_classes": 3,
        "note": "hello",
    }


@pytest.mark.parametrize(
    ("name", "text"), [("mean", "cifar10"), ("std", "0.5"), ("num_classes", "[3]")]
)
def test_metadata_that_are_not_numbers_are_refused(
    tiny: Tiny, tmp_path: Path, name: str, text: str
) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(tiny.state_dict(), file, metadata={name: text})
    with pytest.raises(InputError, match=f"weights.safetensors have {name} = "):
        load_weights(file)


@pytest.mark.parametrize("wrapper", ["", "module.", "body."])
def test_normalisation_in_the_state_dict_becomes_metadata(
    tiny: Tiny, tmp_path: Path, wrapper: str
) -> None:
    """As in checkpoints of the SalUn family, where `normalize` is a module of the network."""
    outer = "" if wrapper == "body." else wrapper
    normalisation = {
        "normalize.mean": torch.tensor([[[0.25]], [[0.5]]]),
        "normalize.std": torch.tensor([1.0, 2.0]),
    }
    normalisation = {outer + name: value for name, value in normalisation.items()}
    torch.save(prefixed(wrapper, tiny) | normalisation, tmp_path / "x.pt")
    tensors, metadata = load_weights(tmp_path / "x.pt")
    assert same(tensors, tiny)
    assert metadata == {"mean": [0.25, 0.5], "std": [1.0, 2.0]}


def lightning_checkpoint(network: nn.Module) -> dict[str, object]:
    state = prefixed("backbone.network.", network)
    state |= {"reference.network.linear.weight": torch.zeros(1), "mask.conv": torch.ones(1)}
    return {
        "state_dict": state,
        "epoch": 1,
        "optimizer_states": [{"state": {0: torch.zeros(2)}}],
        "loops": {},
    }


def test_of_a_runs_checkpoint_the_network_is_taken(tiny: Tiny, tmp_path: Path) -> None:
    """Mutation that must fail it: the frozen reference, or a mask, taken for weights of the
    network.
    """
    network = ImageNetwork(tiny, [0.25, 0.5], [1.0, 2.0])
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(lightning_checkpoint(network), folder / "checkpoints" / "last.ckpt")
    for path in (folder, folder / "checkpoints", folder / "checkpoints" / "last.ckpt"):
        tensors, metadata = load_weights(path)
        assert same(tensors, tiny)
        assert metadata == {"mean": [0.25, 0.5], "std": [1.0, 2.0]}


def test_a_reference_is_never_loaded(tiny: Tiny, tmp_path: Path) -> None:
    state = prefixed("model.", tiny) | {"reference.linear.weight": torch.zeros(3, 4)}
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    assert same(load_weights(tmp_path / "x.ckpt")[0], tiny)


def test_weights_are_read_from_folders(tiny: Tiny, tmp_path: Path) -> None:
    """An export (or a download from the hub) before a checkpoint; a single checkpoint; nothing;
    several.
    """
    with pytest.raises(
        InputError, match=r"folder .* has none of model\.safetensors.*may not be a finished run"
    ):
        load_weights(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    torch.save(lightning_checkpoint(tiny), checkpoints / "epoch=1.ckpt")
    assert same(load_weights(tmp_path)[0], tiny)
    torch.save(lightning_checkpoint(tiny), checkpoints / "epoch=2.ckpt")
    with pytest.raises(InputError, match="it has 2 checkpoints, so name one"):
        load_weights(tmp_path)
    other = Tiny()
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "tiny",
        "num_classes": 3,
        "pretrained_cfg": {"mean": [0.5, 0.5], "std": [1, 1]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors, metadata = load_weights(tmp_path)
    assert same(tensors, other)
    assert metadata == {"architecture": "tiny", "num_classes": 3, "mean": [0.5, 0.5], "std": [1, 1]}


def test_bad_files_are_named(tiny: Tiny, tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    torch_file = tmp_path / "good.pt"
    save_file(tiny.state_dict(), good)
    torch.save(tiny.state_dict(), torch_file)
    cuts = range(0, torch_file.stat().st_size, 500)
    bad = {f"cut{cut}.pt": torch_file.read_bytes()[:cut] for cut in cuts} | {
        "cut.safetensors": good.read_bytes()[:-10],
        "header.safetensors": good.read_bytes()[:20],
        "empty.safetensors": b"",
        "renamed.safetensors": torch_file.read_bytes(),
        "text.pt": b"these are no weights",
        "renamed.pt": good.read_bytes(),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as caught:
            load_weights(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value), name
    for absent in (
        tmp_path / "absent.pt",
        tmp_path / "absent.safetensors",
        tmp_path / "no" / "folder",
    ):
        with pytest.raises(InputError, match=f"there are no weights at .*{absent.name}"):
            load_weights(absent)
    with pytest.raises(InputError, match="there is no file"):
        read_checkpoint(tmp_path / "absent.ckpt")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "holds no weights"),
        ([1, 2], "holds a list"),
        (torch.zeros(2), "holds a Tensor"),
        ({"state_dict": {"a": torch.zeros(2), "epoch": 3}}, "entry 'epoch' is of type int"),
        ({"accuracy": 0.5}, "entry 'accuracy' is of type float"),
        ({"state_dict": {"reference.a": torch.zeros(2)}}, "holds no weights"),
    ],
)
def test_files_that_are_no_state_dicts_are_refused(
    tmp_path: Path, content: object, sentence: str
) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(InputError, match=rf"odd\.pt.*{sentence}"):
        load_weights(tmp_path / "odd.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_objects_are_never_unpickled(tiny: Tiny, tmp_path: Path) -> None:
    """A whole module, a plain pickle and a payload: refused with the cure, and the payload did not
    run.
    """
    torch.save(tiny, tmp_path / "module.pt")
    torch.save({"state_dict": tiny.state_dict(), "extra": Payload()}, tmp_path / "payload.pt")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"weights": Payload()}))
    (tmp_path / "renamed.safetensors").write_bytes(pickle.dumps({"weights": Payload()}))
    Payload.ran.clear()
    for name in ("module.pt", "payload.pt"):
        with pytest.raises(
            InputError, match=rf"{name} is a pickle that needs the Python object \S+, .*torch\.save"
        ):
            load_weights(tmp_path / name)
    for name in ("plain.pth", "renamed.safetensors"):
        with pytest.raises(InputError, match=name):
            load_weights(tmp_path / name)
    assert Payload.ran == []


def test_assigned_weights_give_the_same_logits(tiny: Tiny) -> None:
    other = Tiny().eval()
    assert assign_weights(other, prefixed("module.", tiny), "x.pt") == []
    x = torch.rand(2, 2, 6, 6)
    assert torch.equal(other(x), tiny(x))
    wrapped = ImageNetwork(Tiny(), [0.5, 0.5], [1.0, 1.0])
    assign_weights(wrapped, tiny.state_dict(), "x.pt")
    assert same(dict(wrapped.body.state_dict()), tiny)
    assert wrapped.normalize.mean.tolist() == [0.5, 0.5]


def test_assigning_keeps_dtype_and_identity(tiny: Tiny) -> None:
    other = Tiny().to(torch.float64)
    weight = other.conv.weight
    assign_weights(other, tiny.state_dict(), "x.pt")
    assert other.conv.weight is weight and weight.dtype == torch.float64 and weight.requires_grad
    assert torch.equal(weight.float(), tiny.conv.weight)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"linear.bias": None}, "lacks linear.bias; check"),
        ({"head.weight": torch.zeros(1)}, "has head.weight, which the network has not"),
        ({"linear.bias": None, "b": torch.zeros(1)}, "lacks linear.bias and has b, which"),
        ({f"x{i}": torch.zeros(1) for i in range(7)}, "has x0, x1, x2, x3, x4 and 2 more, which"),
        (
            {"linear.weight": torch.zeros(5, 4), "linear.bias": torch.zeros(5)},
            r"linear.weight of shape \[5, 4\] where the network has \[3, 4\].*; set num_classes "
            r"to 5\.",
        ),
        ({"conv.weight": torch.zeros(4, 1, 3, 3)}, "set in_channels to 1"),
        (
            {"bn.weight": torch.zeros(8)},
            r"bn.weight of shape \[8\] where .* \[4\]; check the network's name",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tiny: Tiny, change: dict[str, Tensor | None], sentence: str
) -> None:
    """Nothing is copied, not even the tensors that fit."""
    tensors = {name: torch.ones_like(value) for name, value in tiny.state_dict().items()} | change
    before = weights_hash(tiny)
    with pytest.raises(InputError, match=rf"x\.pt .*{sentence}"):
        assign_weights(
            tiny, {name: value for name, value in tensors.items() if value is not None}, "x.pt"
        )
    assert weights_hash(tiny) == before


def test_the_cure_names_num_classes_for_a_wrapped_network_too() -> None:
    with pytest.raises(InputError, match="set num_classes to 100"):
        network = image_network("resnet8_cifar", 10, width=4)
        assign_weights(network, build("resnet8_cifar", 100, width=4).state_dict(), "x.pt")


def test_not_strict_takes_what_fits_but_never_nothing_and_never_a_wrong_shape(tiny: Tiny) -> None:
    other = Tiny()
    missing = assign_weights(
        other, {"conv.weight": tiny.conv.weight, "more": torch.zeros(1)}, "x.pt", strict=False
    )
    assert torch.equal(other.conv.weight, tiny.conv.weight)
    assert "linear.weight" in missing and "conv.weight" not in missing
    with pytest.raises(InputError, match="does not fit"):
        assign_weights(other, {"more": torch.zeros(1)}, "x.pt", strict=False)
    with pytest.raises(InputError, match="of shape"):
        assign_weights(other, {"bn.weight": torch.zeros(9)}, "x.pt", strict=False)


def test_old_files_without_batch_norm_counters_load(tiny: Tiny) -> None:
    tensors = {
        name: value
        for name, value in tiny.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert assign_weights(Tiny(), tensors, "x.pt") == ["bn.num_batches_tracked"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv.weight", torch.full((4, 2, 3, 3), torch.nan), "NaN or infinity in 72 of 72"),
        ("bn.running_var", torch.tensor([1.0, torch.inf, 1.0, 1.0]), "NaN or infinity in 1 of 4"),
        ("conv.weight", torch.ones(4, 2, 3, 3, dtype=torch.int8), "int8"),
        ("conv.weight", torch.ones(4, 2, 3, 3, dtype=torch.bool), "bool"),
        ("conv.weight", torch.ones(4, 2, 3, 3, dtype=torch.complex64), "complex64"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_values_that_are_no_weights_are_refused(
    tiny: Tiny, name: str, value: Tensor, message: str, strict: bool
) -> None:
    before = weights_hash(tiny)
    tensors = {key: tensor.clone() for key, tensor in Tiny().state_dict().items()}
    with pytest.raises(InputError, match=message):
        assign_weights(tiny, {**tensors, name: value}, "x.pt", strict=strict)
    assert weights_hash(tiny) == before


def test_large_half_precision_weights_are_finite(tiny: Tiny) -> None:
    tensors = {**tiny.state_dict(), "conv.weight": torch.full((4, 2, 3, 3), 6e4).half()}
    assert assign_weights(tiny, tensors, "x.pt") == []


def test_the_hash_sees_every_bit_and_nothing_else(tiny: Tiny) -> None:
    digest = weights_hash(tiny)
    assert len(digest) == 16 and int(digest, 16) >= 0
    assert weights_hash(dict(reversed(tiny.state_dict().items()))) == digest
    assert (
        weights_hash(tiny.train().requires_grad_(False).to(memory_format=torch.channels_last))
        == digest
    )
    changes = [
        lambda state: state["conv.weight"][0, 0, 0, 0].mul_(1 + 1e-6),
        lambda state: state["bn.running_mean"][0].add_(1e-3),
        lambda state: state["bn.num_batches_tracked"].add_(1),
        lambda state: state.update({"conv.bias": state["conv.bias"].double()}),
        lambda state: state.update({"conv.weight": state["conv.weight"].flatten(1)}),
        lambda state: state.update({"other.bias": state.pop("conv.bias")}),
    ]
    for change in changes:
        state = {name: value.clone() for name, value in tiny.state_dict().items()}
        change(state)
        assert weights_hash(state) != digest
