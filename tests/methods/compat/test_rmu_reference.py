"""RMU as OpenUnlearning has it: its loss is the mean of a matrix, over the optimizer's step."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from mu.functional.tokens import IGNORED
from mu.methods.compat.rmu_reference import RMUReference
from mu.methods.language.rmu import RMU
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import weights
from tests.support.token_methods import (
    check_accumulated_batches,
    first_pair,
    terms_of,
    trained_model,
)


def test_the_loss_is_the_mean_over_all_pairs_of_sums_and_lengths() -> None:
    """`sums [B] / lengths [B, 1]` is `[B, B]`; the paper's mean is that of its diagonal."""
    forget, retain = first_pair(people())
    module = RMUReference(trained_model(), layer=1, scale=3.0, alpha=5.0)
    module.configure_model()
    with torch.no_grad():
        for _, weight in module.trainable():
            weight.mul_(1.5)
        moved = causal_lm(weights(module.backbone)).eval()
        states = moved.hidden(forget, 1)
        squares = (states - module.control).square().mean(-1)
    at = forget["labels"] != IGNORED
    assert len(set(at.sum(1).tolist())) > 1, "of equal lengths, both means are the same"
    sums = (squares * at).sum(1)
    lengths = at.sum(1, keepdim=True)
    terms = terms_of(module, forget, retain)
    assert terms["misdirect"] == pytest.approx(float((sums / lengths).mean()), rel=1e-4)
    assert terms["misdirect"] != pytest.approx(float((sums / lengths[:, 0]).mean()), rel=1e-3)
    assert terms["retain"] > 0


def test_one_big_batch_or_several_small_ones() -> None:
    check_accumulated_batches(partial(RMUReference, layer=1))


def test_settings_equal_those_of_rmu() -> None:
    module = RMUReference(trained_model(), layer=1, alpha=2.0)
    assert isinstance(module, RMU) and module.positions == "labels" and module.alpha == 2.0
