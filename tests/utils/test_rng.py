"""Keyed draws: a pure function of (seed, index, visit, stream), uniform, and never shared by two
purposes.
"""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mu.utils import rng

INDEX = torch.arange(20000)


def test_a_draw_depends_on_the_sample_and_not_on_its_neighbours() -> None:
    """Fails when numbers are drawn in the order of the batch: two ranks would then draw others than
    one.
    """
    whole = rng.normal(3, INDEX[:50], 2, "crop", 4)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(9)
    assert torch.equal(rng.normal(3, INDEX[:50][order], 2, "crop", 4), whole[order])
    assert torch.equal(rng.normal(3, INDEX[7:8], torch.tensor([2]), "crop", 4), whole[7:8])


@pytest.mark.parametrize("other", [(4, 2, "crop"), (3, 1, "crop"), (3, 2, "flip")])
def test_seed_visit_and_purpose_each_give_other_numbers(other: tuple[int, int, str]) -> None:
    """Fails when one part of the key is left out of the hash."""
    one = rng.uniform(3, INDEX, 2, "crop")
    two = rng.uniform(other[0], INDEX, other[1], other[2])
    assert (one == two).double().mean() < 0.001
    assert abs(torch.corrcoef(torch.stack([one, two]).double())[0, 1].item()) < 4 / math.sqrt(
        len(INDEX)
    )


def test_visits_and_indices_do_not_trade_places() -> None:
    """Fails when index and visit are added up: sample 1 at visit 0 would draw what sample 0 draws
    at visit 1.
    """
    grid = torch.cartesian_prod(torch.arange(60), torch.arange(60))
    raw = rng.bits(0, grid[:, 0], grid[:, 1], "x", 2).flatten()
    assert len(raw.unique()) == len(raw)


def test_uniform_draws_are_uniform_and_open_at_both_ends() -> None:
    """Fails when the ends are included (a logarithm would be infinite) or the upper bits are
    dropped.
    """
    u = rng.uniform(0, INDEX, 0, "u", 10).double()
    assert 0 < u.min() < u.max() < 1
    counts = torch.histc(u, 20, 0, 1)
    expected = u.numel() / 20
    assert (
        (counts - expected) ** 2 / expected
    ).sum() < 45  # chi-squared, 19 degrees of freedom: 1e-3 quantile is 43.8


def test_normal_draws_are_normal() -> None:
    """Fails when the tails are cut, or mean and deviation are off by more than five standard
    errors.
    """
    z = rng.normal(0, INDEX, 0, "z", 10).double().flatten()
    count = z.numel()
    assert abs(z.mean()) < 5 / math.sqrt(count)
    assert abs(z.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((z**4).mean() - 3) < 5 * math.sqrt(96 / count)
    assert 4 < z.abs().max() < 7


@given(high=st.integers(1, 1000), seed=st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_integers_lie_in_range(high: int, seed: int) -> None:
    """Fails when a sign bit makes a number negative, or `high` itself is drawn."""
    drawn = rng.integers(seed, INDEX[:200], 0, "k", high)
    assert drawn.dtype == torch.int64
    assert 0 <= drawn.min() <= drawn.max() < high


def test_integers_are_even() -> None:
    """Fails when some class is drawn more often than others."""
    counts = torch.bincount(rng.integers(0, INDEX, 0, "k", 10, 5).flatten(), minlength=10).double()
    expected = counts.sum() / 10
    assert (
        (counts - expected) ** 2 / expected
    ).sum() < 28  # 9 degrees of freedom: 1e-3 quantile is 27.9


def test_shapes_of_draws_follow_the_arguments() -> None:
    """Fails when a shape is flattened, or a scalar draw keeps an extra dimension."""
    assert rng.uniform(0, INDEX[:3], 0, "s").shape == (3,)
    assert rng.normal(0, INDEX[:3], 0, "s", 2, 4).shape == (3, 2, 4)
    assert rng.integers(0, INDEX[:0], 0, "s", 5, 2).shape == (0, 2)


def test_the_numbers_are_the_same_in_every_process() -> None:
    """Fails when a key goes through Python's `hash`, which is salted anew in each process."""
    code = (
        "import torch; from mu.utils import rng; "
        "print(rng.bits(5, torch.arange(3), 1, 'crop', 2).tolist())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert other.strip() == str(rng.bits(5, torch.arange(3), 1, "crop", 2).tolist())


def test_the_mixer_is_splitmix64() -> None:
    """Fails when a shift or a constant is wrong: expected values by big integers, from the
    published finaliser.
    """
    mask = 2**64 - 1

    def reference(x: int) -> int:
        x &= mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    values = [0, 1, 2**63, 2**64 - 1, 0x9E3779B97F4A7C15, 123456789]
    signed = [v - 2**64 if v >= 2**63 else v for v in values]
    assert [v & mask for v in rng._mix(torch.tensor(signed)).tolist()] == [
        reference(v) for v in values
    ]


def test_gumbel_draws_are_gumbel() -> None:
    """Mutations: a sign; one logarithm. The mean is Euler's constant, the variance pi²/6, and F(x)
    = exp(-exp(-x)).
    """
    found = rng.gumbel(0, torch.arange(20000), 0, "test").double()
    assert abs(found.mean() - 0.5772156649) < 0.03 and abs(found.var() - math.pi**2 / 6) < 0.06
    for x in (-1.0, 0.0, 1.0, 3.0):
        assert abs((found <= x).double().mean() - math.exp(-math.exp(-x))) < 0.015
