"""Weights of loss terms against the published equations: bargains, constraints, per sample."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import mu.functional as mf
from mu.utils.errors import InputError
from tests.support.loops import draw, normal, quick, same, wants_grad


@quick
@given(st.lists(st.floats(-4, 4), min_size=6, max_size=6), st.floats(-3, 3))
def test_bargain_weights(values, log_scale):
    # Wu and Harandi. The Nash condition itself: each weight is the inverse of
    # its gradient's gain.
    g = torch.tensor(values, dtype=torch.float64).view(2, 3) * 10**log_scale
    a = (g[0] @ g[0]).item()
    b = (g[0] @ g[1]).item()
    c = (g[1] @ g[1]).item()
    assume(min(a, c) > 1e-12 and b / math.sqrt(a * c) > -0.99)
    grams = g @ g.T
    nash = torch.stack(mf.nash_weights(grams))
    torch.testing.assert_close(
        nash * (grams @ nash), torch.ones(2, dtype=torch.float64), rtol=1e-8, atol=0
    )
    denominator = a * a * c - a * b * b + 1e-8
    squared = (a * c - b * math.sqrt(a * c)) / denominator
    alpha_r = math.sqrt(squared) if squared >= 0 else math.nan
    alpha_f = (1 - a * alpha_r**2) / (b * alpha_r + 1e-8)
    # not decided by rounding
    if abs(squared * denominator) > 1e-6 * a * c and abs(alpha_f * b * alpha_r) > 1e-6:
        want = (alpha_r, alpha_f) if alpha_r > 0 and alpha_f > 0 else (1.0, 0.1)
        assert [w.item() for w in mf.munba_weights(grams)] == pytest.approx(want, rel=1e-4)


def test_where_the_released_bargain_departs_from_the_solution():
    def grams(scale, cosine):
        return scale * torch.tensor([[1.0, cosine], [cosine, 1.0]], dtype=torch.float64)

    for exact, released in zip(
        mf.nash_weights(grams(1, 0.3)), mf.munba_weights(grams(1, 0.3)), strict=True
    ):
        torch.testing.assert_close(exact, released, rtol=1e-6, atol=0)
    # 1 / (a^2 c), not 1 / sqrt(c)
    assert mf.munba_weights(grams(4, 0.0))[1].item() == pytest.approx(1 / 64)
    assert mf.nash_weights(grams(4, 0.0))[1].item() == pytest.approx(0.5)
    assert (
        mf.munba_weights(grams(1e-6, 0.3))[0].item()
        < 0.01 * mf.nash_weights(grams(1e-6, 0.3))[0].item()
    )
    for no_bargain in (grams(1, -1.0), torch.zeros(2, 2)):
        assert [w.item() for w in mf.nash_weights(no_bargain, fallback=(2.0, 3.0))] == [2.0, 3.0]
    # opposed gradients are no failure to the released form: sqrt(2 / 1e-8) for both
    assert [w.item() for w in mf.munba_weights(grams(1, -1.0))] == pytest.approx(
        [math.sqrt(2e8)] * 2, rel=1e-6
    )
    assert [w.item() for w in mf.munba_weights(torch.zeros(2, 2))] == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 2.0])
def test_sfr_adaptive_weights(lam):
    # Huang et al., NeurIPS 2024
    loss = wants_grad(draw(7, seed=20).square())
    inverse = [1 / (x**lam + 1e-15) for x in loss.tolist()]
    got = mf.sfr_adaptive_weights(loss, lam)
    same(got, [len(loss) * x / sum(inverse) for x in inverse])
    assert not got.requires_grad
    assert mf.sfr_adaptive_weights(torch.zeros(3), lam).tolist() == pytest.approx([1.0, 1.0, 1.0])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("eta", [0.1, 3.0])
def test_weights_of_a_constraint(seed, eta):
    g = normal(13, seed=seed)
    q = normal(13, seed=seed + 50)
    pairs = list(zip(g.tolist(), q.tolist(), strict=True))
    dot = sum(a * b for a, b in pairs)
    square = sum(b * b for _, b in pairs)
    length = math.sqrt(sum(a * a for a, _ in pairs))
    bome = mf.bome_weight(g, q, eta).item()
    assert bome == pytest.approx(max(0.0, eta - dot / square), rel=1e-12, abs=1e-12)
    cosine = dot / (length * math.sqrt(square) + 1e-8)
    weight = mf.cosine_weight(g, q, eta).item()
    assert weight == pytest.approx(max(0.0, eta - cosine), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_bome_lowers_the_constraint(seed):
    """⟨g + λ q, q⟩ >= η ‖q‖², with equality where λ is not 0."""
    g = normal(9, seed=seed)
    q = normal(9, seed=seed + 9)
    eta = 0.4
    weight = mf.bome_weight(g, q, eta)
    rate = ((g + weight * q) * q).sum() / q.square().sum()
    assert rate >= eta - 1e-12
    assert weight == 0 or rate == pytest.approx(eta)


@pytest.mark.parametrize("law", [mf.bome_weight, mf.cosine_weight])
def test_a_constraint_without_gradient_weighs_nothing(law):
    assert law(normal(4), torch.zeros(4, dtype=torch.float64), 0.1) == 0


def test_shapes_are_checked():
    with pytest.raises(InputError, match="one shape"):
        mf.bome_weight(torch.zeros(3), torch.zeros(1), 1.0)
