"""Boundary shrink as in the released code: the label of a failed attack, and whole runs."""

from __future__ import annotations

from typing import Any

import torch

from mu.methods import BoundaryShrink
from mu.methods.compat import BoundaryShrinkReference
from tests.support.equations import doubled
from tests.support.equations_vision import all_rows, nearest_labels
from tests.support.helpers import classifier, digits
from tests.support.method_runs import check_class_is_forgotten, check_preset_runs, sgd


def test_the_reference_keeps_the_label_of_a_failed_attack(originals: Any) -> None:
    original = doubled(classifier(originals["classifier"]))
    part = all_rows(digits(), "forget")
    plain, wrong = (
        nearest_labels(original, part, 0.01, wrong_only) for wrong_only in (False, True)
    )
    assert bool((plain == part["label"]).any()) and not bool((wrong == part["label"]).any())
    logits = original(part["image"].double())
    for method, expected in ((BoundaryShrink, [1, 0]), (BoundaryShrinkReference, [0, 0])):
        module = method(classifier())
        labels = module.nearest(
            torch.tensor([[5.0, 3.0, 1.0], [5.0, 3.0, 1.0]]), torch.tensor([0, 1])
        )
        assert labels.tolist() == expected
    assert BoundaryShrinkReference(classifier()).attack.round_to_255  # type: ignore[attr-defined]
    assert bool(
        (BoundaryShrink(classifier()).nearest(logits, part["label"]) != part["label"]).all()
    )


def test_preset_runs() -> None:
    check_preset_runs("boundary_shrink_reference_code")


def test_the_rest_of_the_classes_stays() -> None:
    check_class_is_forgotten(
        lambda b: BoundaryShrinkReference(b, optimizer=sgd(5e-3)), 10, 1.0, 0.9
    )
