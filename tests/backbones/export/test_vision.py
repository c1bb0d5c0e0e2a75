"""Export: what is written loads in the libraries that people use, and a failed export leaves
nothing behind.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mu.backbones.export import vision as export_module
from mu.backbones.export.vision import export_network
from mu.backbones.vision.networks import assign_image_weights, build, image_network
from mu.backbones.vision.normalisation import ImageNetwork
from mu.utils.errors import InputError
from mu.utils.weights import load_weights

RESULTS: dict[str, Any] = {
    "method": "SalUn",
    "task": "digits, class 3",
    "metrics": {
        "UA": {"value": 96.25, "split": "forget", "gap": -1.5},
        "RA": {"value": 99.5, "split": "retain"},
        "TA": 91.0,
        "MIA": {"value": float("nan"), "split": "forget"},
        "curve": {"value": [1, 2]},
    },
}


def moved(name: str, classes: int, channels: int = 3, **options: Any) -> ImageNetwork:
    """A network whose norms have seen data, so that lost buffers would show."""
    torch.manual_seed(1)
    network = image_network(
        name, classes, channels, mean=[0.4] * channels, std=[0.3] * channels, **options
    )
    network.train()(torch.rand(4, channels, 32, 32))
    return network.eval()


def write(network: ImageNetwork, folder: Path, name: str, **more: Any) -> Path:
    mean = network.normalize.mean.tolist()
    std = network.normalize.std.tolist()
    more = {"num_classes": 5, "input_size": (len(mean), 32, 32), "mean": mean, "std": std} | more
    return export_network(network, folder, name=name, **more)


@pytest.mark.parametrize(("channels", "options"), [(3, {}), (1, {"drop_rate": 0.25})])
def test_a_timm_export_loads_in_plain_timm(
    tmp_path: Path, channels: int, options: dict[str, Any]
) -> None:
    import timm

    network = moved("timm:resnet10t", 5, channels, **options)
    folder = write(network, tmp_path / "model", "timm:resnet10t", options=options)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = torch.rand(2, channels, 32, 32)
    assert torch.equal(loaded(network.normalize(x)), network(x))
    data = timm.data.resolve_model_data_config(loaded)
    assert list(data["input_size"]) == [channels, 32, 32]
    assert (
        list(data["mean"]) == network.normalize.mean.tolist()
        and list(data["std"]) == network.normalize.std.tolist()
    )
    assert loaded.drop_rate == options.get("drop_rate", 0.0)


def test_the_tag_of_published_weights_is_left_out_of_the_config(tmp_path: Path) -> None:
    """The weights are no longer the published ones."""
    write(moved("resnet10t.c3_in1k", 5), tmp_path / "model", "resnet10t.c3_in1k")
    assert (
        json.loads((tmp_path / "model" / "config.json").read_text())["architecture"] == "resnet10t"
    )


def test_a_torchvision_export_loads_in_plain_torchvision(tmp_path: Path) -> None:
    import torchvision

    network = moved("torchvision:mobilenet_v3_small", 5)
    write(network, tmp_path / "model", "torchvision:mobilenet_v3_small")
    plain = torchvision.models.get_model("mobilenet_v3_small", weights=None, num_classes=5).eval()
    plain.load_state_dict(load_file(tmp_path / "model" / "model.safetensors"))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(plain(network.normalize(x)), network(x))


@pytest.mark.parametrize("name", ["resnet8_cifar", "resnet10t"])
def test_an_export_loads_back_with_its_normalisation(tmp_path: Path, name: str) -> None:
    network = moved(name, 5)
    folder = write(network, tmp_path / "model", name)
    tensors, metadata = load_weights(folder)
    again = image_network(name, 5).eval()
    assign_image_weights(again, tensors, metadata, folder, keep_normalisation=False)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(x), network(x))
    assert again.input_size == (3, 32, 32)
    assert metadata["architecture"] == name and metadata["num_classes"] == 5


def usage(folder: Path) -> str:
    """The Python lines of the model card."""
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize(
    ("name", "channels", "options"),
    [
        ("resnet8_cifar", 1, {"width": 4}),
        ("resnet10t", 3, {}),
        ("torchvision:mobilenet_v3_small", 3, {}),
        ("torchvision:squeezenet1_1", 1, {}),
    ],
)
def test_the_lines_in_the_card_run(
    tmp_path: Path, name: str, channels: int, options: dict[str, Any]
) -> None:
    network = moved(name, 5, channels, **options)
    folder = write(network, tmp_path / "model", name, options=options)
    scope: dict[str, Any] = {}
    exec(usage(folder).replace("FOLDER", str(folder)), scope)
    x = torch.rand(2, channels, 32, 32)
    assert torch.equal(scope["model"].eval()(network.normalize(x)), network(x))


def test_wrappers_are_not_exported(tmp_path: Path) -> None:
    network = moved("resnet8_cifar", 5, width=4)
    write(network, tmp_path / "a", "resnet8_cifar", options={"width": 4})
    mean = [0.4] * 3
    std = [0.3] * 3
    wrapped = torch.nn.DataParallel(network)
    export_network(
        wrapped,
        tmp_path / "b",
        name="resnet8_cifar",
        num_classes=5,
        mean=mean,
        std=std,
        options={"width": 4},
    )
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert first.keys() == second.keys() == network.body.state_dict().keys()


def test_the_card_tells_the_results(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    more = {"results": RESULTS, "license": "apache-2.0"}
    folder = write(moved("resnet8_cifar", 5), tmp_path / "salun", "resnet8_cifar", **more)
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.tags == ["image-classification", "machine-unlearning", "SalUn"]
    assert card.data.metrics == ["UA", "RA", "TA"]
    results = {
        result.metric_name: (result.metric_value, result.dataset_split)
        for result in card.data.eval_results or []
    }
    assert results == {"UA": (96.25, "forget"), "RA": (99.5, "retain"), "TA": (91.0, None)}
    assert "| UA | forget | 96.25 | -1.5 |" in card.text
    assert "| TA |  | 91 |  |" in card.text
    assert "unlearned by `SalUn` on the task `digits, class 3`" in card.text
    assert "MIA" not in card.text and "curve" not in card.text  # no number, so no claim


def test_metrics_may_be_a_list_and_results_may_be_absent(tmp_path: Path) -> None:
    network = moved("resnet8_cifar", 5)
    rows = [{"metric": "UA", "value": 5.0, "split": "forget", "gap": 0.5}]
    folder = write(
        network, tmp_path / "a", "resnet8_cifar", results={"metrics": rows}, title="My model"
    )
    text = (folder / "README.md").read_text()
    assert "| UA | forget | 5 | 0.5 |" in text and "# My model" in text
    text = (write(network, tmp_path / "b", "resnet8_cifar") / "README.md").read_text()
    assert (
        "No results were recorded" in text
        and "model-index" not in text
        and "| metric |" not in text
    )


def test_a_network_that_its_name_does_not_give_is_refused(tmp_path: Path) -> None:
    network = moved("resnet8_cifar", 5)
    for name, more in (
        ("resnet20_cifar", {}),
        ("resnet8_cifar", {"num_classes": 6}),
        ("resnet9_cifar", {}),
        ("resnet8_cifar", {"options": {"width": 4}}),
        ("resnet8_cifar", {"mean": [0.0], "std": [1.0]}),
    ):
        with pytest.raises(InputError, match=name):
            write(network, tmp_path / "model", name, **more)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    network = moved("resnet8_cifar", 5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("three years")
    (tmp_path / "file").write_text("x")
    for name in ("full", "file"):
        with pytest.raises(InputError, match=f"{name} exists already and is not an empty folder"):
            write(network, tmp_path / name, "resnet8_cifar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    assert (write(network, tmp_path / "empty", "resnet8_cifar") / "model.safetensors").is_file()


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(export_module, "_card", broken)
    with pytest.raises(OSError, match="disk full"):
        write(moved("resnet8_cifar", 5), tmp_path / "model", "resnet8_cifar")
    assert not list(tmp_path.iterdir())


def test_exporting_moves_no_random_state_and_no_weight(tmp_path: Path) -> None:
    network = moved("resnet8_cifar", 5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    write(network, tmp_path / "model", "resnet8_cifar")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (
        build("resnet8_cifar", 5).state_dict().keys() == load_weights(tmp_path / "model")[0].keys()
    )
