"""Boundary shrink: the labels across the nearest boundary, its step, and whole runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mu.attacks import FGSM
from mu.methods import BoundaryShrink
from tests.support.equations import (
    PLAIN,
    disturb,
    doubled,
    first_batch,
    log_softmax,
    moved_as,
    total,
)
from tests.support.equations_vision import nearest_labels
from tests.support.helpers import classifier, digits
from tests.support.method_runs import check_class_is_forgotten, check_preset_runs, sgd


@pytest.mark.parametrize("epsilon", [0.02, 0.3])
def test_boundary_shrink_fits_the_nearest_wrong_label(epsilon: float, originals: Any) -> None:
    """Chen et al., CVPR 2023. Mutations that must fail: the student attacked instead of the
    original; its train mode; the plain argmax.
    """
    state = originals["classifier"]

    def equation(network: Any, batch: dict[str, Any]) -> Tensor:
        original = doubled(classifier(state))
        target = nearest_labels(original, batch["forget"], epsilon, wrong_only=True)
        logs = log_softmax(network(batch["forget"]["image"].double()))
        return -torch.stack([row[label] for row, label in zip(logs, target, strict=True)]).mean()

    moved_as(
        BoundaryShrink(classifier(state), attack=FGSM(epsilon), optimizer=PLAIN, norm="eval"),
        equation,
    )


def test_boundary_shrink_attacks_the_original_in_later_steps(originals: Any) -> None:
    """Must fail if the attack or the label is taken from the student, which is the original in the
    first step only.
    """
    module = BoundaryShrink(classifier(originals["classifier"]), norm="eval")
    module.configure_model()
    original = doubled(module.backbone)
    disturb(module.backbone)
    batch = first_batch(module, digits())
    network = doubled(module.backbone)
    targets = [
        nearest_labels(net, batch["forget"], 0.1, wrong_only=True) for net in (original, network)
    ]
    assert not torch.equal(*targets)
    logs = log_softmax(network(batch["forget"]["image"].double()))
    expected = -torch.stack(
        [row[label] for row, label in zip(logs, targets[0], strict=True)]
    ).mean()
    module.set_mode()
    assert total(module.objective(*module.prepare_parts(batch))).item() == pytest.approx(
        expected.item(), rel=1e-4
    )


def test_preset_runs() -> None:
    check_preset_runs("boundary_shrink")


def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(lambda b: BoundaryShrink(b, optimizer=sgd(5e-3)), 10, 0.2, 0.9)
