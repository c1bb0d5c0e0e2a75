"""Preference losses against the published equations, stated again on tokens of unequal lengths in
Python floats and loops.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import mu.functional.preference as mp
from mu.utils.errors import InputError

LENGTHS = [1, 9, 4, 23, 2]
BETAS = [0.05, 0.1, 1.0, 4.5]
Tokens = list[list[float]]
"""Log-probabilities of the labelled tokens of each sequence."""


def tokens(seed: int, scale: float = 1.0, lengths: list[int] = LENGTHS) -> Tokens:
    """Sequences of unequal lengths; log-probabilities in (-3 scale, 0)."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (-3 * scale * torch.rand(n, generator=generator, dtype=torch.float64)).tolist()
        for n in lengths
    ]


def sums(sequences: Tokens) -> Tensor:
    """S, as a model gives it: from a padded batch."""
    widest = max(map(len, sequences))
    batch = torch.tensor(
        [row + [math.nan] * (widest - len(row)) for row in sequences], dtype=torch.float64
    )
    return -batch.nansum(1)


def means(sequences: Tokens) -> Tensor:
    """A."""
    return sums(sequences) / torch.tensor([len(row) for row in sequences], dtype=torch.float64)


def probability(row: list[float]) -> float:
    """Of a sequence, token by token."""
    product = 1.0
    for value in row:
        product *= math.exp(value)
    return product


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def same(values: Tensor, expected: list[float]) -> None:
    assert values.shape == (len(expected),), "one value a sequence"
    torch.testing.assert_close(
        values, torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=1e-12
    )


def slope(loss: Tensor, variable: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss.sum(), variable)
    return gradient


# ---------------------------------------------------------------- the equations


@pytest.mark.parametrize("beta", BETAS)
def test_npo_is_its_equation(beta):
    """Equation 3 of arXiv 2404.05868, by probabilities: (2/β) log(1 + (π/π_ref)^β)."""
    now = tokens(0)
    before = tokens(1)
    expected = [
        2 / beta * math.log(1 + (probability(a) / probability(b)) ** beta)
        for a, b in zip(now, before, strict=True)
    ]
    same(mp.npo(sums(now), sums(before), beta), expected)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("delta", [0.0, 0.7, -0.2])
def test_simnpo_is_its_equation(beta, delta):
    """Arithmetic mean over the tokens of each sequence first, the nonlinearity then, with the
    margin of the code (inside β).
    """
    now = tokens(2)
    expected = []
    for row in now:
        average = sum(-value for value in row) / len(row)
        expected.append(-2 / beta * math.log(sigmoid(beta * (average - delta))))
    same(mp.simnpo(means(now), beta, delta), expected)


@pytest.mark.parametrize("beta", BETAS)
def test_simnpo_has_the_papers_margin_outside_beta(beta):
    """arXiv 2410.07163: −(2/β) log σ(−(β/|y|) log π − γ) with γ = β δ."""
    now = tokens(2)
    gamma = 0.3
    expected = [
        -2 / beta * math.log(sigmoid(-beta / len(row) * math.log(probability(row)) - gamma))
        for row in now
    ]
    same(mp.simnpo(means(now), beta, gamma / beta), expected)


@pytest.mark.parametrize("beta", BETAS)
def test_dpo_is_its_equation(beta):
    """Equation 7 of arXiv 2305.18290 by log-ratios of probabilities, times 2/β. The winner's and
    the loser's lengths differ.
    """
    win = tokens(3, lengths=LENGTHS[::-1])
    win_ref = tokens(4, lengths=LENGTHS[::-1])
    lose = tokens(5)
    lose_ref = tokens(6)
    expected = []
    for w, wr, x, xr in zip(win, win_ref, lose, lose_ref, strict=True):
        reward = beta * math.log(probability(w) / probability(wr)) - beta * math.log(
            probability(x) / probability(xr)
        )
        expected.append(-math.log(sigmoid(reward)) * 2 / beta)
    same(mp.dpo(sums(win), sums(win_ref), sums(lose), sums(lose_ref), beta), expected)


# ---------------------------------------------------------------- what the papers say about them


@pytest.mark.parametrize("beta", BETAS)
def test_at_the_original_the_loss_is_two_over_beta_log_two(beta):
    s = sums(tokens(0))
    other = sums(tokens(1))
    same(mp.npo(s, s, beta), [2 / beta * math.log(2)] * len(s))
    same(mp.dpo(s, s, other, other, beta), [2 / beta * math.log(2)] * len(s))


def test_the_value_of_the_reference_code():
    assert mp.npo(torch.zeros(1), torch.zeros(1), 0.1).item() == pytest.approx(13.863, abs=5e-4)


@pytest.mark.parametrize("beta", BETAS)
def test_npos_gradient_is_weighted_ascent(beta):
    """∇ NPO = −w ∇S, w = 2 π^β / (π^β + π_ref^β) in (0, 2), and 1 at the original."""
    now = tokens(0)
    before = tokens(1)
    s = sums(now).requires_grad_()
    powers = [
        (probability(a) ** beta, probability(b) ** beta) for a, b in zip(now, before, strict=True)
    ]
    expected = [2 * a / (a + b) for a, b in powers]
    same(-slope(mp.npo(s, sums(before), beta), s), expected)
    same(mp.npo_weight(sums(now), sums(before), beta), expected)
    assert all(0 < weight < 2 for weight in expected)
    same(mp.npo_weight(sums(now), sums(now), beta), [1.0] * len(now))


@pytest.mark.parametrize("beta", [1e-3, 1e-5, 1e-7])
def test_npo_tends_to_gradient_ascent(beta):
    """By no more than β/4 times the squared change of S, which is the next term of the series."""
    s = sums(tokens(0)).requires_grad_()
    before = sums(tokens(1))
    loss = mp.npo(s, before, beta)
    gap = loss - 2 / beta * math.log(2) - (before - s)
    assert (gap.abs() <= beta / 4 * (s - before).square() + 1e-6).all()
    torch.testing.assert_close(slope(loss, s), -torch.ones_like(s), rtol=0, atol=beta * 40)


@pytest.mark.parametrize("beta", BETAS)
def test_simnpos_gradient_is_the_same_for_every_length(beta):
    """−2 (1 − σ(β (A − δ))) / N for each token: A, not S, decides the weight."""
    short = [-0.4] * 2
    long = [-0.4] * 20
    a = means([short, long]).requires_grad_()
    gradient = slope(mp.simnpo(a, beta, 0.1), a)
    same(gradient, [-2 * (1 - sigmoid(beta * 0.3))] * 2)


@pytest.mark.parametrize("beta", BETAS)
def test_dpo_without_a_winner_is_npo(beta):
    lose = sums(tokens(0))
    before = sums(tokens(1))
    nothing = torch.zeros(len(LENGTHS), dtype=torch.float64)
    torch.testing.assert_close(
        mp.dpo(nothing, nothing, lose, before, beta), mp.npo(lose, before, beta)
    )


@pytest.mark.parametrize("beta", BETAS)
def test_dpo_pulls_the_winner_as_it_pushes_the_loser(beta):
    win = sums(tokens(3)).requires_grad_()
    lose = sums(tokens(5)).requires_grad_()
    loss = mp.dpo(win, sums(tokens(4)), lose, sums(tokens(6)), beta)
    up, down = torch.autograd.grad(loss.sum(), (win, lose))
    torch.testing.assert_close(up, -down)
    assert (down < 0).all()


# ---------------------------------------------------------------- numbers that do not fit


@pytest.mark.parametrize("change", [-4e4, -300.0, 300.0, 4e4])
def test_sequences_that_became_impossible_or_certain(change):
    """Neither infinite nor without gradient where the ratio itself would overflow."""
    s = torch.tensor([5e4 + change], requires_grad=True)
    loss = mp.npo(s, torch.tensor([5e4]), 0.1)
    assert loss.isfinite().all() and loss.item() == pytest.approx(max(0.0, -2 * change), abs=1e-6)
    assert slope(loss, s).item() == pytest.approx(-2.0 if change < 0 else 0.0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype):
    s = torch.tensor([3.0, 40.0], dtype=dtype)
    before = torch.tensor([2.5, 41.0], dtype=dtype)
    for value, expected in (
        (mp.npo(s, before, 0.1), mp.npo(s.float(), before.float(), 0.1)),
        (mp.simnpo(s, 4.5), mp.simnpo(s.float(), 4.5)),
        (
            mp.dpo(s, before, before, s, 0.1),
            mp.dpo(s.float(), before.float(), before.float(), s.float(), 0.1),
        ),
    ):
        assert value.dtype == torch.float32
        assert torch.equal(value, expected)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
def test_beta_is_checked(beta):
    x = torch.zeros(2)
    calls = (
        lambda: mp.npo(x, x, beta),
        lambda: mp.npo_weight(x, x, beta),
        lambda: mp.simnpo(x, beta),
        lambda: mp.dpo(x, x, x, x, beta),
    )
    for call in calls:
        with pytest.raises(InputError, match="greater than 0"):
            call()


def test_shapes_are_checked():
    with pytest.raises(InputError, match="one shape"):
        mp.npo(torch.zeros(3), torch.zeros(1), 0.1)
    with pytest.raises(InputError, match="one shape"):
        mp.dpo(torch.zeros(3), torch.zeros(3), torch.zeros(2), torch.zeros(2), 0.1)
