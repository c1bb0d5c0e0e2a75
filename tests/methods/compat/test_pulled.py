"""Fine-tuning and NegGrad+ with a pull to the original: the added term, and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mu.methods.compat import FineTunePulled, NegGradPlusPulled
from tests.support.equations import (
    FAST,
    close,
    cross_entropy,
    disturb,
    doubled,
    first_batch,
    gradient,
    total,
)
from tests.support.helpers import classifier, digits
from tests.support.method_runs import INSIDE_EPOCHS, check_preset_builds, resumed_run


@pytest.mark.parametrize("cls", [FineTunePulled, NegGradPlusPulled])
def test_pulled_variants_add_half_the_squared_distance(cls: Any) -> None:
    """The pull has no gradient at the start, so the student is moved away first."""
    module = cls(classifier(), pull_weight=0.6)
    module.configure_model()
    assert module.norm == "eval"
    before = doubled(module.backbone)
    disturb(module.backbone)
    batch = first_batch(module, digits())
    module.set_mode()
    gradients = torch.autograd.grad(
        total(module.objective(batch.get("forget"), batch["retain"])), module.backbone.parameters()
    )
    network = doubled(module.backbone)
    pull = 0.3 * sum(
        (p - q.detach()).square().sum()
        for p, q in zip(network.parameters(), before.parameters(), strict=True)
    )
    loss = cross_entropy(network, batch["retain"]) + pull
    if cls is NegGradPlusPulled:
        loss = 0.95 * loss - 0.05 * cross_entropy(network, batch["forget"])
    close(gradients, gradient(network, loss))


@pytest.mark.parametrize("position", INSIDE_EPOCHS)
def test_a_run_resumes_inside_an_epoch(position: tuple[int, int], tmp_path: Path) -> None:
    resumed_run(lambda b: NegGradPlusPulled(b, optimizer=FAST), position, tmp_path)


@pytest.mark.parametrize("name", ["finetune_reference_code", "neggrad_plus_reference_code"])
def test_preset_builds(name: str) -> None:
    check_preset_builds(name)
