"""Every method under the trainer's half precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mu.methods import FineTune
from tests.contract.catalogue import PAIRS, Case
from tests.support.helpers import State, classifier, fit

FAST = {
    ("FineTune", "classifier"),
    ("Influence", "classifier"),
    ("SalUn", "classifier"),
    ("UNSIR", "classifier"),
    ("SFD", "text_to_image"),
    ("NPO", "causal_lm"),
}


def _parameter(pair: tuple[str, str]) -> Any:
    marks = () if pair in FAST else (pytest.mark.slow,)
    return pytest.param(*pair, marks=marks, id="-".join(pair))


@pytest.mark.parametrize(("name", "kind"), [_parameter(pair) for pair in PAIRS])
def test_a_method_fits_in_bfloat16(name: str, kind: str, originals: dict[str, State]) -> None:
    """Fails when a method makes float32 tensors meet the weights of bf16-true."""
    module = Case(name, kind, originals[kind]).run(precision="bf16-true")
    weights = [weight for _, weight in module.trainable()]
    assert all(torch.isfinite(weight).all() for weight in weights)
    assert {weight.dtype for weight in weights} == {torch.bfloat16}


def test_statistics_are_recomputed_in_bfloat16(originals: dict[str, State]) -> None:
    """Fails when the pass that recalibrates batch norm feeds float32 images to bfloat16 weights."""
    module = FineTune(classifier(originals["classifier"]), norm="recalibrate")
    fit(module, precision="bf16-true")
    assert all(torch.isfinite(buffer).all() for _, buffer in module.backbone.named_buffers())
