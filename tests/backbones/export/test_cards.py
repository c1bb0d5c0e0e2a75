"""Model cards: how the model came about, and code that runs as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mu.backbones import CausalLM, Classifier, LoRA, TextToImage
from mu.backbones.export import export
from mu.backbones.export.card import history
from mu.backbones.vision.networks import class_names
from mu.cli.export import export_run
from mu.core.module import UnlearningModule
from mu.methods import FineTune, Retrain, Train
from tests.support.doubles import class_conditional, text_to_image
from tests.support.doubles_text import causal_lm
from tests.support.helpers import classifier, digits, fit


def run_card(folder: Path) -> dict[str, Any]:
    """Names that the Python code of a folder's card defines."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    scope: dict[str, Any] = {}
    exec(code.replace("FOLDER", str(folder)), scope)
    return scope


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (classifier, "model"),
        (class_conditional, "model"),
        (text_to_image, "model"),
        (lambda: text_to_image(part="xattn"), "edited"),
        (lambda: text_to_image(part="xattn", lora=LoRA(r=2)), "adapter"),
        (lambda: TextToImage("embedded:shapes", "xattn", lora=LoRA(r=2)), "adapter"),
        (lambda: TextToImage("embedded:shapes", "xattn"), "edited"),
        (causal_lm, "model"),
        (lambda: causal_lm(lora=LoRA(r=2)), "adapter"),
        (lambda: CausalLM("embedded:authors", lora=LoRA(r=2)), "adapter"),
    ],
)
def test_the_code_of_a_card_runs(make: Any, form: Any, tmp_path: Path) -> None:
    """Fails when a base model that comes with mu is looked for on the hub."""
    backbone = make().eval()
    with torch.no_grad():
        for weight in backbone.parameters():
            weight += 0.01 if weight.requires_grad else 0.0
    assert run_card(export(backbone, tmp_path / "model", form))


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({}, ""),
        ({"method": "SalUn", "task": "digits"}, ", unlearned by `SalUn` on the task `digits`"),
        (
            {"role": "unlearned", "method": "ESD", "task": "shapes", "concept": "circle"},
            ", unlearned by `ESD` on the task `shapes` (forgotten: circle)",
        ),
        (
            {"role": "original", "method": "Train", "task": "digits", "concept": "a"},
            ", trained on the task `digits`",
        ),
        (
            {"role": "oracle", "method": "Retrain", "task": "digits", "concept": "a"},
            ", trained without the forget set on the task `digits` (a)",
        ),
        ({"role": "pretrained", "method": "PretrainedModel", "task": "digits"}, ""),
    ],
)
def test_a_card_says_how_its_model_came_about(results: dict[str, Any], words: str) -> None:
    assert history(results) == words


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Train, "10 classes, trained on the task `digits`. Written"),
        (Retrain, "10 classes, trained without the forget set on the task `digits` (RandomFrac"),
        (FineTune, "10 classes, unlearned by `FineTune` on the task `digits` (forgotten: Rand"),
    ],
)
def test_the_card_of_a_run_names_size_and_classes(
    method: type[UnlearningModule], words: str, tmp_path: Path
) -> None:
    """Fails when an original is said to be unlearned, or what the data say is lost with them."""
    keep = ModelCheckpoint(tmp_path / "run" / "checkpoints", "last", enable_version_counter=False)
    backbone = Classifier("timm:resnet10t", in_channels=1, init_seed=0)
    task = digits(train_size=60)
    fit(method(backbone), task, 1, callbacks=[keep], default_root_dir=str(tmp_path / "run"))
    task.split.save(tmp_path / "run" / "split.json")
    folder = export_run(tmp_path / "run", tmp_path / "model")
    card = " ".join((folder / "README.md").read_text().split())
    assert words in card
    assert ("machine-unlearning" in card) == (method is FineTune)
    assert "Classes, in the order of the logits: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in card
    config = json.loads((folder / "config.json").read_text())
    assert config["label_names"] == list("0123456789")
    assert config["pretrained_cfg"]["input_size"] == [1, 8, 8]
    # the exported folder, and the run, say the same when they are read again
    for weights in (folder, tmp_path / "run"):
        again = Classifier("timm:resnet10t", in_channels=1, weights=str(weights))
        assert again.weights_metadata["input_size"] == [1, 8, 8]
        assert class_names(again.weights_metadata) == list("0123456789")
