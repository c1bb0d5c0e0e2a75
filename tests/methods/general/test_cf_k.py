"""CF-k: fine-tuning of the last k layers alone, and whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mu.backbones import Classifier
from mu.methods.general.cf_k import CFk, last_layers
from mu.utils.errors import InputError
from tests.support.equations import FAST, PLAIN, cross_entropy, doubled, first_batch, gradient
from tests.support.helpers import classifier, digits, fit, regressor, weights
from tests.support.method_runs import (
    INSIDE_EPOCHS,
    LAST_K,
    check_class_is_forgotten,
    check_only_the_last_k_layers_move,
    check_preset_builds,
    resumed_run,
)


@pytest.mark.parametrize("k", LAST_K)
def test_only_the_last_k_layers_move(k: int) -> None:
    check_only_the_last_k_layers_move(CFk, k)


def test_cf_k_takes_the_step_of_fine_tuning_on_its_layers() -> None:
    backbone = classifier()
    module = CFk(backbone, k=1, optimizer=PLAIN, norm="eval")
    task = digits()
    network = doubled(backbone)
    expected = gradient(network, cross_entropy(network, first_batch(module, task)["retain"]))
    before = weights(backbone)
    fit(module, task, max_steps=1, epochs=1)
    for name in ("body.linear.weight", "body.linear.bias"):
        step = backbone.network.get_parameter(name).detach() - before[f"network.{name}"]
        torch.testing.assert_close(step.double(), -expected[name], atol=1e-5, rtol=1e-4)


def test_last_layers_count_from_the_output() -> None:
    backbone = classifier()
    assert [name for name, _ in last_layers(backbone, 2)] == ["body.layer3.0.conv2", "body.linear"]
    for k in (0, 9, -2):
        with pytest.raises(InputError, match="8 weight layers"):
            CFk(backbone, k=k)
    assert len(last_layers(regressor(), -1)) == 2
    timm = Classifier(
        "timm:vit_tiny_patch16_224",
        options={"img_size": 32, "patch_size": 16, "depth": 2, "drop_rate": 0.5},
    )
    module = CFk(timm, k=1)
    module.configure_model()
    module.set_mode()
    off = {
        name
        for name, layer in timm.network.named_modules()
        if isinstance(layer, nn.Dropout) and not layer.training
    }
    on = {
        name
        for name, layer in timm.network.named_modules()
        if isinstance(layer, nn.Dropout) and layer.training
    }
    assert "body.blocks.0.mlp.drop1" in off and "body.pos_drop" in off and not on & off


@pytest.mark.parametrize("position", INSIDE_EPOCHS)
def test_a_run_resumes_inside_an_epoch(position: tuple[int, int], tmp_path: Path) -> None:
    """The frozen prefix travels with the checkpoint."""
    resumed_run(lambda b: CFk(b, k=3, optimizer=FAST), position, tmp_path)


def test_preset_builds() -> None:
    check_preset_builds("cf_k")


@pytest.mark.slow
def test_the_rest_of_the_classes_stays() -> None:
    """A class is not forgotten in so short a time."""
    check_class_is_forgotten(CFk, 5, 1.0, 0.97)
