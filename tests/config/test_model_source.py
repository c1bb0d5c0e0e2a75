"""The backbone of a model that mu did not train follows from its files and the configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mu.config.model_source import backbone_spec, model_form, model_name
from mu.utils.errors import InputError
from mu.utils.spec import from_spec
from mu.utils.weights import weights_hash
from tests.support.doubles import class_conditional, pipeline_folder
from tests.support.doubles_text import causal_lm
from tests.support.doubles_text import folder as language_folder
from tests.support.helpers import classifier

NARROW = {
    "class_path": "mu.backbones.Classifier",
    "init_args": {
        "name": "resnet8_cifar",
        "in_channels": 1,
        "num_classes": 10,
        "mean": [0.3],
        "std": [0.4],
        "options": {"width": 4},
        "weights": "runs/original",
        "init_seed": 3,
    },
}


def test_a_diffusers_folder_is_read_by_the_text_to_image_backbone() -> None:
    spec = backbone_spec(pipeline_folder())
    assert spec == {
        "class_path": "mu.backbones.TextToImage",
        "init_args": {"model": pipeline_folder()},
    }


def test_a_transformers_folder_is_read_with_the_options_of_the_configuration() -> None:
    """What belongs to a fit (part, lora, new weights) is left out."""
    arguments = {
        "model": "data/model",
        "weights": "runs/npo",
        "dtype": "bfloat16",
        "part": ["layers"],
        "lora": {"class_path": "mu.backbones.LoRA"},
        "init_seed": 1,
    }
    spec = backbone_spec(
        language_folder(), {"class_path": "mu.backbones.CausalLM", "init_args": arguments}
    )
    assert spec["init_args"] == {"model": language_folder(), "dtype": "bfloat16"}
    assert weights_hash(from_spec(backbone_spec(language_folder()))) == weights_hash(causal_lm())


def test_a_file_of_weights_keeps_the_architecture_of_the_configuration(tmp_path: Path) -> None:
    model = classifier()
    file = tmp_path / "theirs.pt"
    torch.save({"state_dict": model.network.state_dict()}, file)
    spec = {
        "class_path": "mu.backbones.Classifier",
        "init_args": {"name": model.name, "num_classes": 10, "in_channels": 1, "pretrained": True},
    }
    described = backbone_spec(str(file), spec)
    assert described["init_args"] == {
        "name": model.name,
        "num_classes": 10,
        "in_channels": 1,
        "weights": str(file),
    }


def test_a_file_of_weights_over_a_base_model_keeps_the_base(tmp_path: Path) -> None:
    file = tmp_path / "unet.safetensors"
    file.touch()
    base = {"class_path": "mu.backbones.TextToImage", "init_args": {"model": "CompVis/base"}}
    assert backbone_spec(str(file), base)["init_args"] == {
        "model": "CompVis/base",
        "weights": str(file),
    }


@pytest.mark.parametrize(
    ("config", "arguments"),
    [
        (
            {
                "architecture": "resnet18",
                "num_classes": 7,
                "pretrained_cfg": {"mean": [0.5], "std": [0.5], "input_size": [1, 32, 32]},
                "model_args": {"in_chans": 1, "drop_rate": 0.1},
            },
            {
                "name": "timm:resnet18",
                "num_classes": 7,
                "in_channels": 1,
                "options": {"drop_rate": 0.1},
            },
        ),
        (
            {
                "architecture": "resnet8_cifar",
                "library": "mu",
                "num_classes": 10,
                "in_channels": 1,
                "options": {"width": 8},
            },
            {
                "name": "resnet8_cifar",
                "num_classes": 10,
                "in_channels": 1,
                "options": {"width": 8},
            },
        ),
    ],
)
def test_an_image_networks_folder_gives_its_own_architecture(
    config: dict[str, Any], arguments: dict[str, Any], tmp_path: Path
) -> None:
    """Mean and std are those of the folder, whatever the task's are."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    spec = backbone_spec(str(tmp_path), NARROW)
    assert spec["init_args"] == {
        "mean": None,
        "std": None,
        "weights": str(tmp_path),
        **arguments,
    }


@pytest.mark.parametrize(
    ("name", "classes"), [("timm:resnet18.a1_in1k", 1000), ("torchvision:resnet18", 1000)]
)
def test_a_published_network_keeps_its_head(name: str, classes: int) -> None:
    """Another number of classes would put a random head in place of the trained one."""
    arguments = backbone_spec(name, NARROW)["init_args"]
    assert (arguments["name"], arguments["pretrained"]) == (name, True)
    assert (arguments["num_classes"], arguments["in_channels"]) == (classes, 3)
    assert arguments["mean"] is None and "weights" not in arguments


def test_a_class_conditional_folder_is_read_by_its_backbone(tmp_path: Path) -> None:
    model = class_conditional()
    model.unet.save_pretrained(tmp_path / "unet")  # type: ignore[operator]
    (tmp_path / "scheduler").mkdir()
    spec = backbone_spec(str(tmp_path))
    assert spec["class_path"] == "mu.backbones.ClassConditionalDiffusion"
    assert spec["init_args"] == {"model": str(tmp_path)}


@pytest.mark.parametrize(
    ("model", "backbone", "sentence"),
    [
        (
            "PIPELINE",
            "Classifier",
            "is a diffusers pipeline, and the task's backbone is Classifier; take a task for "
            "TextToImage",
        ),
        ("LANGUAGE", "TextToImage", "is a transformers model, and the task's backbone is TextTo"),
        ("missing.pt", "Classifier", "there is no model missing.pt"),
        ("./missing", "CausalLM", "there is no model ./missing"),
        ("USER/NAME", None, "is a hub id, which does not tell what model it is of; give a task"),
        ("embedded:nothing", None, "no model named 'nothing' comes with mu"),
    ],
)
def test_a_model_that_does_not_fit_is_one_sentence(
    model: str, backbone: str | None, sentence: str
) -> None:
    paths = {"PIPELINE": pipeline_folder(), "LANGUAGE": language_folder()}
    spec = {"class_path": f"mu.backbones.{backbone}"} if backbone else None
    with pytest.raises(InputError, match=sentence):
        backbone_spec(paths.get(model, model), spec)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"holds no model: it has neither model_index\.json"):
        model_form(str(tmp_path))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("downloads/sd-finetuned/", "sd-finetuned"),
        ("downloads/mine/model.safetensors", "mine"),
        ("downloads/mine.pth.tar", "mine"),
        ("embedded:authors_oracle", "authors_oracle"),
        ("timm:hf-hub:USER/net", "hf-hub-USER-net"),
        ("USER/net-1.5", "net-1.5"),
    ],
)
def test_a_model_is_named_by_its_file_or_folder(model: str, name: str) -> None:
    assert model_name(model) == name
