"""Distances between two models: a method against the oracle, in metrics and in outputs.

Gaps are two-sided: forgetting more than the oracle is as far from it as forgetting less. Metrics by
name are in percent, so gaps are in percentage points. Output distances take logits `[N, K]` of two
models on the same samples in the same order, and compute in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import torch
from torch import Tensor

from mu.metrics.classification import check_logits, log_probabilities
from mu.utils.errors import InputError, RunError

PAPERS_FOUR = ("UA", "RA", "TA", "MIA")
"""What the papers' average gap is taken over: Fan et al., "SalUn", ICLR 2024, Table 1."""

Value = float | Sequence[float]
"""One number, or one for each seed."""


def mean_of(value: Value) -> float:
    """A number, or the mean over seeds."""
    return fmean(value) if isinstance(value, Sequence) else float(value)


def gaps(
    values: Mapping[str, Value], oracle: Mapping[str, Value], metrics: Sequence[str] | None = None
) -> dict[str, float]:
    """|mean over seeds - the oracle's mean over seeds| for every metric.

    Args:
        values: a number by metric, or one for each seed.
        oracle: the same metrics of the oracle.
        metrics: which to compare; by default all, and then both sides must have the same.

    Raises:
        InputError: when a metric is missing on either side, or nothing is left to compare.
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
    """Mean of the gaps over the metrics, in the metrics' unit; 0 for the oracle itself.

    Args:
        values: a number by metric (the papers' are `PAPERS_FOUR`, in percent), or one for each
            seed.
        oracle: the same metrics of the oracle. With `mean_of_gaps`, its seeds pair with those of
            `values`.
        metrics: which to average over; by default all that are given.
        how: `gap_of_means`, the papers' form, compares means over seeds; `mean_of_gaps` averages
            the gaps of single seeds, which is never smaller, because gaps of opposite sign do not
            cancel.
    """
    if how == "gap_of_means":
        return fmean(gaps(values, oracle, metrics).values())
    if how != "mean_of_gaps":
        raise InputError(
            f"there is no way {how} to average gaps; use gap_of_means or mean_of_gaps."
        )
    single = []
    for name in gaps(values, oracle, metrics):
        here, there = (_seeds(side[name]) for side in (values, oracle))
        if len(here) != len(there):
            raise InputError(
                f"{name} has {len(here)} seeds, but the oracle has {len(there)}; the mean of gaps "
                "pairs them one to one."
            )
        single.append(fmean(abs(a - b) for a, b in zip(here, there, strict=True)))
    return fmean(single)


def _seeds(value: Value) -> list[float]:
    return [float(each) for each in value] if isinstance(value, Sequence) else [float(value)]


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Mean over seeds and half width of Student's interval for it.

    Args:
        values: at least two numbers.
        level: confidence in (0, 1).
    """
    if len(values) < 2:
        raise InputError(f"an interval needs at least two seeds, but there is {len(values)}.")
    from scipy.stats import t

    return fmean(values), float(t.ppf(0.5 + level / 2, len(values) - 1)) * stdev(
        values
    ) / math.sqrt(len(values))


def tow(values: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Tug of war: the product over forget, retain and test of 1 - |accuracy - the oracle's|, in [0,
    1]; 1 for the oracle itself.

    UA stands for the forget accuracy: |UA - UA*| is the same gap.
    Source: Zhao et al., "What makes unlearning hard and what to do about it" (RUM), NeurIPS 2024.

    Args:
        values: `UA`, `RA`, `TA` in percent.
        oracle: the oracle's.
    """
    return _product(values, oracle, ("UA", "RA", "TA"))


def tow_mia(values: Mapping[str, float], oracle: Mapping[str, float]) -> float:
    """Tug of war with the SVC confidence attack `MIA`, in percent, in place of the forget accuracy:
    in [0, 1].
    """
    return _product(values, oracle, ("MIA", "RA", "TA"))


def _product(
    values: Mapping[str, float], oracle: Mapping[str, float], metrics: Sequence[str]
) -> float:
    return math.prod(1 - gap / 100 for gap in gaps(values, oracle, metrics).values())


def accuracy_unlearning_score(
    original_test: float, unlearned_test: float, unlearned_forget: float
) -> float:
    """AUS of DUCK: (1 - test accuracy lost) / (1 + |test accuracy - forget accuracy|), accuracies
    in percent; 1 is ideal.

    Source: Cotogni et al., "DUCK: distance-based unlearning via centroid kinematics",
    arXiv:2312.02052.

    Args:
        original_test: test accuracy of the original.
        unlearned_test: test accuracy of the unlearned model.
        unlearned_forget: its accuracy on the forget samples.
    """
    return (1 - (original_test - unlearned_test) / 100) / (
        1 + abs(unlearned_test - unlearned_forget) / 100
    )


aus = accuracy_unlearning_score


def _log_probabilities(logits: Tensor, oracle_logits: Tensor) -> tuple[Tensor, Tensor]:
    if logits.shape != oracle_logits.shape:
        raise InputError(
            f"the two models' logits have shapes {tuple(logits.shape)} and "
            f"{tuple(oracle_logits.shape)}; give the same samples of both."
        )
    return log_probabilities(check_logits(logits)), log_probabilities(
        check_logits(oracle_logits.to(logits.device))
    )


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_q), 0.0).sum(dim=1)


def _to_middle(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ (p + q)/2) by log(p/m) = log 2 - log(1 + q/p), which is exactly 0 where p = q."""
    difference = torch.where(log_p > -torch.inf, log_q - log_p, 0.0)
    return (
        log_p.exp() * (math.log(2) - torch.logaddexp(torch.zeros_like(difference), difference))
    ).sum(dim=1)


def _js(log_p: Tensor, log_q: Tensor) -> Tensor:
    # rounding may leave the range by 1e-16
    return (0.5 * (_to_middle(log_p, log_q) + _to_middle(log_q, log_p))).clamp(0.0, math.log(2))


def activation_distance(logits: Tensor, oracle_logits: Tensor) -> float:
    """Mean over samples of the Euclidean distance between the two models' probabilities, in [0,
    sqrt 2].

    Source: Chundawat et al., "Can bad teaching induce forgetting?", AAAI 2023.
    """
    log_p, log_q = _log_probabilities(logits, oracle_logits)
    return (log_p.exp() - log_q.exp()).norm(dim=1).mean().item()


def js_divergence(logits: Tensor, oracle_logits: Tensor) -> float:
    """Mean over samples of the Jensen-Shannon divergence KL(p‖m)/2 + KL(q‖m)/2 with m = (p + q)/2,
    in nats, in [0, log 2].
    """
    return _js(*_log_probabilities(logits, oracle_logits)).mean().item()


def kl_divergence(logits: Tensor, oracle_logits: Tensor) -> float:
    """Mean over samples of KL(oracle ‖ model) in nats, never negative: how badly the model codes
    what the oracle says.
    """
    log_p, log_q = _log_probabilities(logits, oracle_logits)
    return _kl(log_q, log_p).mean().clamp(min=0.0).item()


def completeness(logits: Tensor, oracle_logits: Tensor) -> float:
    """Percent of samples that both models put into the same class."""
    log_p, log_q = _log_probabilities(logits, oracle_logits)
    return 100.0 * (log_p.argmax(dim=1) == log_q.argmax(dim=1)).to(torch.float64).mean().item()


def zrf(logits: Tensor, random_logits: Tensor) -> float:
    """Zero retrain forgetting: 1 - mean Jensen-Shannon divergence to a randomly initialised model,
    in [1 - log 2, 1].

    1 = as ignorant as a random model; the goal is the oracle's value, not 1.
    Source: Chundawat et al., "Can bad teaching induce forgetting?", AAAI 2023.

    Args:
        logits: `[N, K]` of the unlearned model on forget samples.
        random_logits: `[N, K]` of the same architecture newly initialised.
    """
    return 1.0 - js_divergence(logits, random_logits)


def zrf_reference(logits: Tensor, random_logits: Tensor) -> float:
    """ZRF as the released code computes it, for comparison with published numbers (original 0.877,
    bad teaching 0.994).

    Both divergences have their arguments exchanged, KL(m‖p) and KL(m‖q), and the mean is over all N
    K entries instead of N samples. Source: vikram2000b/bad-teaching-unlearning, metrics.py. There a
    probability that underflows gives infinity; here it does not.
    """
    log_p, log_q = _log_probabilities(logits, random_logits)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 1.0 - (0.5 * (_kl(log_m, log_p) + _kl(log_m, log_q))).mean().item() / logits.shape[1]


def wasserstein1(a: Tensor, b: Tensor) -> float:
    """Wasserstein-1 distance between two multisets of real numbers, exact, in their own unit; the
    sizes may differ.

    It is the area between the two empirical distribution functions. For equal sizes this is the
    mean |difference| of the sorted values.

    Args:
        a: `[N]`, N >= 1, finite.
        b: `[M]`, M >= 1, finite.
    """
    a, b = (_finite(x, "the values").sort().values for x in (a, b.to(a.device)))
    if len(a) == len(b):
        return (a - b).abs().mean().item()
    steps = torch.cat([a, b]).sort().values
    below_a, below_b = (
        torch.searchsorted(x, steps[:-1], right=True).to(torch.float64) / len(x) for x in (a, b)
    )
    return ((below_a - below_b).abs() * steps.diff()).sum().item()


def mean_absolute_error(prediction: Tensor, target: Tensor) -> float:
    """Mean |prediction - target| of `[N]` and `[N]`, in the target's unit."""
    return _errors(prediction, target).abs().mean().item()


def root_mean_squared_error(prediction: Tensor, target: Tensor) -> float:
    """Square root of the mean squared error of `[N]` and `[N]`, in the target's unit; never below
    the mean absolute error.
    """
    return _errors(prediction, target).square().mean().sqrt().item()


mae = mean_absolute_error
rmse = root_mean_squared_error


def _errors(prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.shape != target.shape:
        raise InputError(
            f"predictions have shape {tuple(prediction.shape)} but targets {tuple(target.shape)}; "
            "they must agree."
        )
    return _finite(prediction, "a prediction") - _finite(target, "a target").to(prediction.device)


def _finite(values: Tensor, name: str) -> Tensor:
    if values.ndim != 1 or len(values) == 0:
        raise InputError(
            f"{name} must be [N] with at least one number, but has shape {tuple(values.shape)}."
        )
    if not bool(values.isfinite().all()):
        raise RunError(
            f"{name} must be finite, but holds infinity or NaN; the model that was tested has "
            "diverged."
        )
    return values.detach().to(torch.float64)
