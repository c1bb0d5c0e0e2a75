"""Penalties on weights against the published equations, in Python floats and loops."""

from __future__ import annotations

import pytest
import torch

import mu.functional as mf
from mu.utils.errors import InputError
from tests.support.loops import draw, normal, wants_grad


def test_l1_norm_and_its_schedule():
    # Jia et al., NeurIPS 2023
    tensors = [draw(2, 3), draw(4), torch.tensor(-2.0, dtype=torch.float64)]
    assert mf.l1_norm(tensors).item() == pytest.approx(
        sum(abs(x) for t in tensors for x in t.flatten().tolist())
    )
    falling = [2 * (1 - e / 10) for e in range(10)]
    assert [mf.l1_sparse_weight(e, 10, 0, 2.0) for e in range(10)] == pytest.approx(falling)
    assert [mf.l1_sparse_weight(e, 5, 5, 0.3) for e in range(5)] == [0.3] * 5
    assert mf.l1_sparse_weight(3, 5, 2, 0.3) == 0
    for call in (lambda: mf.l1_norm([]), lambda: mf.l1_sparse_weight(0, 5, 6, 0.1)):
        with pytest.raises(InputError):
            call()


def test_the_l1_norm_has_its_gradient():
    z = wants_grad(draw(3, 4))
    assert torch.autograd.gradcheck(lambda s: mf.l1_norm([s, s[0]]), (z,))


def test_quadratic_penalty():
    shapes = [(2, 3), (5,), (1, 1, 4)]
    w, a, f = ([normal(*shape, seed=seed) for shape in shapes] for seed in (0, 1, 2))
    expected = 0.0
    for weight, anchor, importance in zip(w, a, f, strict=True):
        rows = zip(
            weight.flatten().tolist(),
            anchor.flatten().tolist(),
            importance.flatten().tolist(),
            strict=True,
        )
        expected += sum(i * (x - y) ** 2 for x, y, i in rows)
    assert mf.quadratic_penalty(w, a, f).item() == pytest.approx(expected, rel=1e-12)
    assert mf.quadratic_penalty(w, w, f) == 0
