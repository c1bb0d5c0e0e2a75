"""Logits of two models combined, against the published equations, in Python floats and loops."""

from __future__ import annotations

import math

import pytest
import torch

import mu.functional.combined_logits as cl
from mu.utils.errors import InputError
from tests.support.loops import normal, softmax

SHAPES = [(1, 2, 2), (3, 7, 11), (4, 5, 23)]


@pytest.mark.parametrize("shape", [(5,), (3, 200), (2, 3, 41)])
@pytest.mark.parametrize("top", [0.0, 0.004, 0.01, 0.1, 0.9, 1.0])
def test_the_relative_top_filter(shape, top):
    """arXiv 2406.08607, on log-probabilities: theta = min(k-th largest, largest + log tau)."""
    base = normal(*shape, scale=2.0)
    assistant = normal(*shape, seed=1)
    expected = []
    mixed = []
    for b, a in zip(
        base.reshape(-1, shape[-1]).tolist(), assistant.reshape(-1, shape[-1]).tolist(), strict=True
    ):
        logs = [math.log(p) for p in softmax(b)]
        if top:
            k = max(1, math.floor(top * len(b)))
            threshold = min(sorted(logs, reverse=True)[k - 1], max(logs) + math.log(top))
            # the loop's own rounding must not decide about the k-th entry itself
            a = [0.0 if log < threshold - 1e-12 else x for log, x in zip(logs, a, strict=True)]
        expected += a
        mixed += [x - 0.8 * y for x, y in zip(b, a, strict=True)]
    filtered = cl.relative_top_filter(base, assistant, top)
    assert filtered.flatten().tolist() == expected
    torch.testing.assert_close(
        cl.logit_difference(base, assistant, -0.8, top).flatten(),
        torch.tensor(mixed, dtype=torch.float64),
    )


def test_at_least_k_tokens_are_kept():
    base = torch.arange(200.0, dtype=torch.float64)[None] * 50
    count = (cl.relative_top_filter(base, torch.ones_like(base), 0.1) != 0).sum()
    assert count == 20
    count = (cl.relative_top_filter(torch.zeros_like(base), torch.ones_like(base), 0.1) != 0).sum()
    assert count == 200  # all are as likely


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0])
def test_generic_logits(alpha):
    """arXiv 2310.02238: v - alpha relu(v_re - v)."""
    base = normal(2, 3, 7)
    reinforced = normal(2, 3, 7, seed=1)
    pairs = zip(base.flatten().tolist(), reinforced.flatten().tolist(), strict=True)
    expected = torch.tensor([b - alpha * max(0.0, r - b) for b, r in pairs], dtype=torch.float64)
    torch.testing.assert_close(cl.generic_logits(base, reinforced, alpha).flatten(), expected)
    assert torch.equal(cl.generic_logits(base, base, alpha), base)


def test_shapes_and_shares_are_checked():
    for call in (
        lambda: cl.relative_top_filter(torch.zeros(2, 5), torch.zeros(5), 0.1),
        lambda: cl.generic_logits(torch.zeros(2, 5), torch.zeros(5), 1.0),
    ):
        with pytest.raises(InputError, match="needs"):
            call()
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        cl.relative_top_filter(torch.zeros(5), torch.zeros(5), 2.0)
