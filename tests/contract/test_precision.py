"""Every method under the trainer's half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mu.methods import SFD, FineTune
from tests.contract.catalogue import PAIRS, Case
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import Snapshot, State, classifier, different, fit, weights

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


@pytest.mark.parametrize(("name", "backbone_name"), [_parameter(pair) for pair in PAIRS])
def test_a_method_fits_in_bfloat16(
    name: str, backbone_name: str, originals: dict[str, State]
) -> None:
    """Fails when a method makes float32 tensors meet the weights of bf16-true."""
    module = Case(name, backbone_name, originals[backbone_name]).run(precision="bf16-true")
    weights = [weight for _, weight in module.trainable()]
    assert all(torch.isfinite(weight).all() for weight in weights)
    assert {weight.dtype for weight in weights} == {torch.bfloat16}


def test_statistics_are_recomputed_in_bfloat16(originals: dict[str, State]) -> None:
    """Fails when the pass that recalibrates batch norm feeds float32 images to bfloat16 weights."""
    module = FineTune(classifier(originals["classifier"]), norm="recalibrate")
    fit(module, precision="bf16-true")
    assert all(torch.isfinite(buffer).all() for _, buffer in module.backbone.named_buffers())


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_run_in_bfloat16_resumes_bit_for_bit(precision: str, tmp_path: Path) -> None:
    """Fails when float32 masters are not in the checkpoint, or are rounded when it is loaded."""

    def method() -> FineTune:
        dtype = "bfloat16" if precision == "32-true" else "float32"
        return FineTune(
            causal_lm(dtype=dtype), optimizer=lambda params: torch.optim.AdamW(params, lr=1e-4)
        )

    snapshot = Snapshot(tmp_path / "middle.ckpt", epoch=0, batch=1)
    uninterrupted = fit(method(), people(), 2, precision=precision, callbacks=[snapshot])
    resumed = fit(method(), people(), 2, precision=precision, ckpt_path=tmp_path / "middle.ckpt")
    assert uninterrupted.backbone.dtype == torch.bfloat16
    assert different(weights(uninterrupted.backbone), weights(resumed.backbone)) == []


@pytest.mark.slow
def test_an_average_in_bfloat16_moves_and_resumes(
    originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when a running average whose steps bfloat16 rounds away stays the original."""
    case = Case("SFD", "class_conditional", originals["class_conditional"])
    arguments = {"average": 0.999}
    snapshot = Snapshot(tmp_path / "middle.ckpt", epoch=0, batch=1)
    uninterrupted = case.run(precision="bf16-true", arguments=arguments, callbacks=[snapshot])
    resumed = case.run(
        precision="bf16-true", arguments=arguments, ckpt_path=tmp_path / "middle.ckpt"
    )
    before = weights(case.backbone().bfloat16())
    assert isinstance(uninterrupted, SFD) and isinstance(resumed, SFD)
    assert uninterrupted.average is not None and resumed.average is not None
    exact: Any = uninterrupted._exact_average
    pairs = zip(exact.copies, uninterrupted.trainable(), strict=True)
    assert any(not torch.equal(copy, before[name].float()) for copy, (name, _) in pairs)
    assert different(weights(uninterrupted.average), weights(resumed.average)) == []
