"""Boundary expand as in the released code: the phantom class is served, and whole runs."""

from __future__ import annotations

from typing import Any

import torch

from mu.methods.compat import BoundaryExpandReference
from tests.support.equations_vision import all_rows
from tests.support.helpers import classifier, digits, fit
from tests.support.method_runs import check_class_is_forgotten, check_preset_runs, sgd


def test_the_reference_serves_the_phantom_class(originals: Any) -> None:
    task = digits()
    module = fit(BoundaryExpandReference(classifier(originals["classifier"]), norm="eval"), task, 1)
    served = module.served().eval()
    part = all_rows(task, "forget")
    logits = served.predict(part)
    assert logits.shape == (24, 11) and served.num_classes == 11  # type: ignore[attr-defined]
    assert torch.allclose(logits[:, :10], module.backbone.eval().predict(part))
    assert module.backbone.predict(part).shape == (24, 10), "the hook is gone after the prediction"


def test_preset_runs() -> None:
    check_preset_runs("boundary_expand_reference_code")


def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(
        lambda b: BoundaryExpandReference(b, optimizer=sgd(5e-3)), 10, 0.1, 0.9
    )
