"""Rates with Wilson intervals: against scipy, with repetitions and groups, and few items."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mu.metrics.rates import Rate, rate, wilson_interval
from mu.utils.errors import InputError, UndefinedError


@given(st.integers(1, 300), st.data())
def test_wilson_intervals_are_scipys(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    expected = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(hits / trials, trials)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= hits / trials <= high <= 1


def test_one_prompt_attacked_200_times_is_one_trial() -> None:
    """Equal lines with equal seeds are 0 or 100 %, which says nothing on other prompts."""
    measured = rate(torch.ones(200), trials=["a church"] * 200)
    assert (measured.percent, measured.trials, measured.items) == (100, 1, 1)
    assert measured.interval[0] < 21 and measured.interval[1] == 100
    assert "one distinct item" in measured.warning
    by_seed = rate(torch.ones(200), [("a church", seed) for seed in range(200)], ["a church"] * 200)
    assert by_seed.interval[0] > 98 and "one distinct item" in by_seed.warning
    assert not rate(torch.ones(20)).warning and "19 distinct" in rate(torch.ones(19)).warning


def test_groups_have_equal_weights() -> None:
    """The interval is over the number of equally weighted trials with the same variance."""
    hits = torch.tensor([1.0] * 90 + [0.0] * 10)
    measured = rate(hits, groups=["cat"] * 90 + ["dog"] * 10)
    assert measured.percent == 50
    assert measured.trials == pytest.approx(4 / (1 / 90 + 1 / 10))
    assert rate(hits, groups=["cat"] * 50 + ["dog"] * 50).trials == 100


def test_a_rate_of_nothing_or_of_nan_is_undefined() -> None:
    for hits in (torch.zeros(0), torch.tensor([1.0, math.nan])):
        with pytest.raises(UndefinedError):
            rate(hits)
    for make in (
        lambda: rate(torch.tensor([2.0])),
        lambda: rate(torch.ones(2), trials=["a"]),
        lambda: wilson_interval(0.5, 0),
    ):
        with pytest.raises(InputError):
            make()
    assert Rate(12.5, 8, 8).detail() == {"distinct_items": 8}
