"""Gaps and output distances against loops, scipy, and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from mu import metrics
from mu.utils.errors import InputError, RunError

RETRAIN = {"UA": 5.24, "RA": 100.0, "TA": 94.26, "MIA": 12.88}
SALUN = {"UA": 2.85, "RA": 99.62, "TA": 93.93, "MIA": 14.39}
percent = st.floats(0, 100)
finite_lists = st.lists(st.floats(-100, 100), min_size=1, max_size=9)


def rows(count: int, classes: int, seed: int, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(
        count, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def probabilities(logits: Tensor) -> list[list[float]]:
    matrix = []
    for row in logits.tolist():
        weights = [math.exp(v) for v in row]
        matrix.append([w / math.fsum(weights) for w in weights])
    return matrix


def kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def middle(p: list[float], q: list[float]) -> list[float]:
    return [(a + b) / 2 for a, b in zip(p, q, strict=True)]


def test_average_gap_reproduces_the_papers_rows() -> None:
    """Two rows of SalUn's table for 10 % random forgetting: the mean of the four bracketed gaps."""
    assert metrics.average_gap(SALUN, RETRAIN) == pytest.approx(1.15, abs=0.005)
    fine_tuning = {"UA": 0.63, "RA": 99.88, "TA": 94.06, "MIA": 2.70}
    assert metrics.average_gap(fine_tuning, RETRAIN) == pytest.approx(3.78, abs=0.005)
    assert metrics.gaps(SALUN, RETRAIN)["MIA"] == pytest.approx(1.51)
    assert metrics.average_gap(
        {**SALUN, "RTE": 2.66}, {**RETRAIN, "RTE": 43.0}, metrics.PAPERS_FOUR
    ) == pytest.approx(1.15, abs=0.005)


@given(st.dictionaries(st.sampled_from(["UA", "RA", "TA", "MIA"]), percent, min_size=1))
@settings(max_examples=40, deadline=None)
def test_the_oracle_has_no_gap_to_itself(values: dict[str, float]) -> None:
    assert metrics.average_gap(values, values) == 0
    assert metrics.average_gap(values, values, how="mean_of_gaps") == 0


@given(st.lists(st.tuples(percent, percent), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_gap_of_means_is_never_above_mean_of_gaps(seeds: list[tuple[float, float]]) -> None:
    method = {"UA": [a for a, _ in seeds]}
    oracle = {"UA": [b for _, b in seeds]}
    of_means = abs(math.fsum(method["UA"]) / len(seeds) - math.fsum(oracle["UA"]) / len(seeds))
    of_gaps = math.fsum(abs(a - b) for a, b in seeds) / len(seeds)
    assert metrics.average_gap(method, oracle) == pytest.approx(of_means, abs=1e-9)
    assert metrics.average_gap(method, oracle, how="mean_of_gaps") == pytest.approx(
        of_gaps, abs=1e-9
    )
    assert metrics.average_gap(method, oracle) <= of_gaps + 1e-9


def test_gaps_on_either_side_cancel_over_seeds_only() -> None:
    assert metrics.average_gap({"UA": [1.0, 3.0]}, {"UA": 2.0}) == 0
    assert metrics.average_gap({"UA": [1.0, 3.0]}, {"UA": [2.0, 2.0]}, how="mean_of_gaps") == 1
    assert metrics.average_gap({"UA": 1.0, "TA": 3.0}, {"UA": 2.0, "TA": 2.0}) == 1


def test_missing_metrics_are_refused() -> None:
    for method, oracle, names in (
        ({"UA": 1.0}, RETRAIN, None),
        (RETRAIN, {"UA": 1.0}, None),
        (SALUN, RETRAIN, ["RTE"]),
        ({}, {}, None),
    ):
        with pytest.raises(InputError, match="missing"):
            metrics.average_gap(method, oracle, names)
    with pytest.raises(InputError, match="seeds"):
        metrics.average_gap({"UA": [1.0, 2.0]}, {"UA": 1.0}, how="mean_of_gaps")
    with pytest.raises(InputError, match="median does not average"):
        metrics.average_gap(SALUN, RETRAIN, how="median")


def test_tug_of_war() -> None:
    stated = (1 - 0.0239) * (1 - 0.0038) * (1 - 0.0033)
    assert metrics.tow(SALUN, RETRAIN) == pytest.approx(stated, rel=1e-9)
    assert metrics.tow_mia(SALUN, RETRAIN) == pytest.approx(
        (1 - 0.0151) * (1 - 0.0038) * (1 - 0.0033), rel=1e-9
    )


@given(*[st.fixed_dictionaries(dict.fromkeys(("UA", "RA", "TA", "MIA"), percent))] * 2)
@settings(max_examples=40, deadline=None)
def test_tug_of_war_is_at_most_one_and_one_at_the_oracle(
    values: dict[str, float], oracle: dict[str, float]
) -> None:
    for score in (metrics.tow, metrics.tow_mia):
        assert 0 <= score(values, oracle) <= 1
        assert score(oracle, oracle) == 1
        assert score(values, oracle) == pytest.approx(score(oracle, values))


def test_accuracy_unlearning_score() -> None:
    assert metrics.aus(90.0, 90.0, 90.0) == 1
    assert metrics.aus(90.0, 85.0, 60.0) == pytest.approx((1 - 0.05) / 1.25)


def test_t_interval() -> None:
    values = [0.91, 0.95, 0.9, 0.97, 0.93]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    mean, half = metrics.t_interval(values)
    assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))
    with pytest.raises(InputError, match="two seeds"):
        metrics.t_interval([1.0])


@pytest.mark.parametrize("shape", [(1, 2), (7, 10), (4, 33)])
def test_output_distances(shape: tuple[int, int]) -> None:
    ours = rows(*shape, seed=1)
    oracle_output = rows(*shape, seed=2)
    pairs = list(zip(probabilities(ours), probabilities(oracle_output), strict=True))
    count = len(pairs)
    distance = math.fsum(math.dist(p, q) for p, q in pairs) / count
    js = math.fsum(kl(p, middle(p, q)) / 2 + kl(q, middle(p, q)) / 2 for p, q in pairs) / count
    exchanged = math.fsum(kl(middle(p, q), p) / 2 + kl(middle(p, q), q) / 2 for p, q in pairs) / (
        count * shape[1]
    )
    same = sum(
        max(range(shape[1]), key=p.__getitem__) == max(range(shape[1]), key=q.__getitem__)
        for p, q in pairs
    )
    assert metrics.activation_distance(ours, oracle_output) == pytest.approx(distance, rel=1e-12)
    assert metrics.js_divergence(ours, oracle_output) == pytest.approx(js, rel=1e-9)
    assert metrics.zrf(ours, oracle_output) == pytest.approx(1 - js, rel=1e-12)
    assert metrics.zrf_reference(ours, oracle_output) == pytest.approx(1 - exchanged, rel=1e-12)
    assert metrics.kl_divergence(ours, oracle_output) == pytest.approx(
        math.fsum(kl(q, p) for p, q in pairs) / count, rel=1e-9
    )
    assert metrics.completeness(ours, oracle_output) == pytest.approx(100 * same / count)


@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(2, 6),
    st.sampled_from([0.01, 1.0, 30.0, 500.0]),
)
@settings(max_examples=60, deadline=None)
def test_bounds_of_divergences(seed: int, count: int, classes: int, scale: float) -> None:
    ours = rows(count, classes, seed, scale)
    oracle_output = rows(count, classes, seed + 1, scale)
    js = metrics.js_divergence(ours, oracle_output)
    assert 0 <= js <= math.log(2)
    assert js == pytest.approx(metrics.js_divergence(oracle_output, ours), abs=1e-12)
    assert metrics.js_divergence(ours, ours) == pytest.approx(0, abs=1e-15) and metrics.zrf(
        ours, ours
    ) == pytest.approx(1, abs=1e-15)
    assert metrics.kl_divergence(ours, ours) == 0
    assert 1 - math.log(2) <= metrics.zrf(ours, oracle_output) <= 1
    assert metrics.kl_divergence(ours, oracle_output) >= 0
    assert 0 <= metrics.activation_distance(ours, oracle_output) <= math.sqrt(2) + 1e-12
    assert metrics.completeness(ours, ours) == 100 and metrics.activation_distance(ours, ours) == 0


def test_divergences_of_certain_predictions_are_finite() -> None:
    """Logarithms of probabilities that underflow give NaN or infinity here."""
    ours = torch.tensor([[2000.0, 0.0]])
    oracle_output = torch.tensor([[0.0, 2000.0]])
    assert metrics.js_divergence(ours, oracle_output) == pytest.approx(math.log(2))
    assert metrics.kl_divergence(ours, oracle_output) == pytest.approx(2000)
    assert math.isfinite(metrics.zrf_reference(ours, oracle_output))


@given(finite_lists, finite_lists)
@settings(max_examples=80, deadline=None)
def test_wasserstein_equals_scipy_and_is_symmetric(a: list[float], b: list[float]) -> None:
    first = torch.tensor(a, dtype=torch.float64)
    second = torch.tensor(b, dtype=torch.float64)
    forward = metrics.wasserstein1(first, second)
    assert forward == pytest.approx(stats.wasserstein_distance(a, b), abs=1e-9)
    assert forward == pytest.approx(metrics.wasserstein1(second, first), abs=1e-12)
    assert metrics.wasserstein1(first, first.flip(0)) == 0
    assert metrics.wasserstein1(first, first.repeat(2)) == pytest.approx(0, abs=1e-12)
    assert metrics.wasserstein1(first + 3, first) == pytest.approx(3, abs=1e-9)


def test_regression_errors() -> None:
    prediction = torch.tensor([1.0, 2.0, 6.0])
    target = torch.tensor([2.0, 2.0, 2.0])
    assert metrics.mae(prediction, target) == pytest.approx(5 / 3)
    assert metrics.rmse(prediction, target) == pytest.approx(math.sqrt(17 / 3))
    with pytest.raises(InputError, match="agree"):
        metrics.mae(prediction, target[:2])
    with pytest.raises(RunError, match="diverged"):
        metrics.rmse(prediction * math.nan, target)


def test_outputs_of_other_samples_are_refused() -> None:
    with pytest.raises(InputError, match="same samples"):
        metrics.js_divergence(rows(3, 4, 0), rows(2, 4, 0))
