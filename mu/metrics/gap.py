"""Gaps between a method's metrics and the oracle's: average gap, tug of war, AUS.

Gaps are two-sided: forgetting more than the oracle is as far from it as forgetting less. Metrics by
name are in percent, so gaps are in percentage points. `mu.metrics.distances` compares outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from mu.metrics.checks import check_number
from mu.utils.errors import InputError

PAPERS_FOUR = ("UA", "RA", "TA", "MIA")
"""Metrics of the papers' average gap: Fan et al., "SalUn", ICLR 2024, Table 1."""

Value = float | Sequence[float]
"""A value, or one value per seed."""


def mean_of(value: Value) -> float:
    """Mean over seeds; a single value is its own mean.

    Args:
        value: a number, or one per seed.

    Raises:
        UndefinedError: a number is NaN.

    Example:
        >>> mean_of([1.0, 3.0]), mean_of(2)
        (2.0, 2.0)
    """
    mean = fmean(value) if isinstance(value, Sequence) else float(value)
    return check_number(mean, "a metric of the gap")


def gaps(
    values: Mapping[str, Value], oracle: Mapping[str, Value], metrics: Sequence[str] | None = None
) -> dict[str, float]:
    """Absolute difference to the oracle in the mean over seeds, by metric.

    Args:
        values: a number by metric, or one per seed.
        oracle: the same metrics of the oracle.
        metrics: names of the metrics to compare; by default all, and then both sides must have the
            same.

    Returns:
        Differences >= 0 in the metrics' unit.

    Raises:
        InputError: a metric is missing on either side, or there is no metric to compare.

    Example: UA 95 and 97 over two seeds against 100.

        >>> gaps({"UA": [95.0, 97.0]}, {"UA": 100.0})
        {'UA': 4.0}
    """
    names = list(oracle) if metrics is None else list(metrics)
    absent = [name for name in names if name not in values or name not in oracle]
    if metrics is None:
        absent += [name for name in values if name not in oracle]
    if absent or not names:
        raise InputError(
            "a gap needs the same metrics on both sides, but "
            f"{absent[0] if absent else 'every metric'} is missing on one; measure it on both, or "
            "name the metrics to compare."
        )
    return {name: abs(mean_of(values[name]) - mean_of(oracle[name])) for name in names}


def average_gap(
    values: Mapping[str, Value],
    oracle: Mapping[str, Value],
    metrics: Sequence[str] | None = None,
    how: str = "gap_of_means",
) -> float:
    """Average gap over metrics, in their unit; 0 for the oracle itself.

    Args:
        values: a number by metric (the papers' are `PAPERS_FOUR`, in percent), or one per seed.
        oracle: the same metrics of the oracle. With `mean_of_gaps`, its seeds pair with those of
            `values`.
        metrics: names of the metrics to average over; by default all.
        how: `gap_of_means`, the papers' form, compares means over seeds; `mean_of_gaps` averages
            the gaps of single seeds, which is never smaller, because gaps of opposite sign do not
            cancel.

    Returns:
        A number >= 0.

    Raises:
        InputError: a metric is missing, `how` is unknown, or the numbers of seeds differ.

    Example: means 50 and 50 have no gap; the single seeds' gaps are 2 and 2.

        >>> values, oracle = {"UA": [48.0, 52.0]}, {"UA": [50.0, 50.0]}
        >>> average_gap(values, oracle), average_gap(values, oracle, how="mean_of_gaps")
        (0.0, 2.0)
    """
    if how == "gap_of_means":
        return fmean(gaps(values, oracle, metrics).values())
    if how != "mean_of_gaps":
        raise InputError(f"{how} does not average gaps; use gap_of_means or mean_of_gaps.")
    single = []
    for name in gaps(values, oracle, metrics):
        seeds, oracle_seeds = (_seeds(side[name]) for side in (values, oracle))
        if len(seeds) != len(oracle_seeds):
            raise InputError(
                f"{name} has {len(seeds)} seeds, but the oracle has {len(oracle_seeds)}; the mean "
                "of gaps "
                "pairs them one to one."
            )
        single.append(fmean(abs(a - b) for a, b in zip(seeds, oracle_seeds, strict=True)))
    return fmean(single)


def _seeds(value: Value) -> list[float]:
    return [float(x) for x in value] if isinstance(value, Sequence) else [float(value)]


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean over seeds and half width of its Student t interval.

    Args:
        values: at least two numbers, one per seed.
        level: confidence in (0, 1).

    Raises:
        InputError: there are fewer than two numbers.

    Example: two seeds 1 and 3: mean 2, half width 12.706 sqrt(2) / sqrt(2).

        >>> [round(x, 3) for x in t_interval([1.0, 3.0])]
        [2.0, 12.706]
    """
    if len(values) < 2:
        raise InputError(f"an interval needs at least two seeds, but there is {len(values)}.")
    from scipy.stats import t

    return mean_of(values), float(t.ppf(0.5 + level / 2, len(values) - 1)) * stdev(
        values
    ) / math.sqrt(len(values))


def tow(values: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Tug of war (ToW): the product of 1 - gap to the oracle over forget, retain and test accuracy.

    In [0, 1]; 1 for the oracle itself. UA is 100 - forget accuracy, whose gap is the same.
    Source: Zhao et al., "What makes unlearning hard and what to do about it" (RUM), NeurIPS 2024.

    Args:
        values: `UA`, `RA`, `TA` in percent.
        oracle: the oracle's.

    Example: gaps of 50, 0 and 20 points: 0.5 × 1 × 0.8.

        >>> oracle = {"UA": 50.0, "RA": 100.0, "TA": 90.0}
        >>> tow({"UA": 100.0, "RA": 100.0, "TA": 70.0}, oracle)
        0.4
    """
    return _product(values, oracle, ("UA", "RA", "TA"))


def tow_mia(values: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Tug of war with the SVC confidence attack `MIA` in place of the forget accuracy.

    Args:
        values: `MIA`, `RA`, `TA` in percent.
        oracle: the oracle's.

    Returns:
        In [0, 1].

    Example: one gap of 50 points.

        >>> oracle = {"MIA": 50.0, "RA": 100.0, "TA": 90.0}
        >>> tow_mia({"MIA": 0.0, "RA": 100.0, "TA": 90.0}, oracle)
        0.5
    """
    return _product(values, oracle, ("MIA", "RA", "TA"))


def _product(
    values: Mapping[str, float], oracle: Mapping[str, float], metrics: Sequence[str]
) -> float:
    return math.prod(1 - gap / 100 for gap in gaps(values, oracle, metrics).values())


def accuracy_unlearning_score(
    original_test: float, unlearned_test: float, unlearned_forget: float
) -> float:
    """Accuracy unlearning score (AUS): (1 - loss of test accuracy) / (1 + |test - forget
    accuracy|).

    Accuracies are taken as shares here; 1 is ideal.

    Source: Cotogni et al., "DUCK: distance-based unlearning via centroid kinematics",
    arXiv:2312.02052.

    Args:
        original_test: test accuracy of the original, in percent.
        unlearned_test: test accuracy of the unlearned model, in percent.
        unlearned_forget: its accuracy on the forget samples, in percent.

    Example: 10 points lost, forget accuracy at 0: 0.9 / 1.8.

        >>> accuracy_unlearning_score(90.0, 80.0, 0.0)
        0.5
    """
    for accuracy in (original_test, unlearned_test, unlearned_forget):
        check_number(accuracy, "an accuracy")
    return (1 - (original_test - unlearned_test) / 100) / (
        1 + abs(unlearned_test - unlearned_forget) / 100
    )


aus = accuracy_unlearning_score
