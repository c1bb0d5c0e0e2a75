"""Distances between two models' outputs: KL, Jensen-Shannon, activation distance, ZRF, Wasserstein.

Output distances take logits `[N, K]` of two models on the same samples in the same order, and
compute in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mu.metrics.checks import as_finite_vector
from mu.metrics.classification import check_logits, log_probabilities
from mu.utils.errors import InputError


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


def _kl_to_mixture(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ (p + q)/2) by log(p/m) = log 2 - log(1 + q/p), which is exactly 0 where p = q."""
    difference = torch.where(log_p > -torch.inf, log_q - log_p, 0.0)
    return (
        log_p.exp() * (math.log(2) - torch.logaddexp(torch.zeros_like(difference), difference))
    ).sum(dim=1)


def _js(log_p: Tensor, log_q: Tensor) -> Tensor:
    # rounding may leave the range by 1e-16
    return (0.5 * (_kl_to_mixture(log_p, log_q) + _kl_to_mixture(log_q, log_p))).clamp(
        0.0, math.log(2)
    )


def activation_distance(logits: Tensor, oracle_logits: Tensor) -> float:
    """Activation distance: mean Euclidean distance of two models' probabilities, in [0, sqrt 2].

    Source: Chundawat et al., "Can bad teaching induce forgetting?", AAAI 2023.

    Args:
        logits: `[N, K]` of the model.
        oracle_logits: `[N, K]` of the oracle on the same samples.

    Example: (1/2, 1/2) against (3/4, 1/4): sqrt(1/8).

        >>> oracle = torch.tensor([[math.log(3), 0.0]])
        >>> round(activation_distance(torch.zeros(1, 2), oracle), 4)
        0.3536
    """
    log_p, log_q = _log_probabilities(logits, oracle_logits)
    return (log_p.exp() - log_q.exp()).norm(dim=1).mean().item()


def js_divergence(logits: Tensor, oracle_logits: Tensor) -> float:
    """Mean Jensen-Shannon divergence KL(p‖m)/2 + KL(q‖m)/2 with m = (p + q)/2.

    Args:
        logits: `[N, K]` of the model.
        oracle_logits: `[N, K]` of the oracle on the same samples.

    Returns:
        In nats, in [0, log 2].

    Example: nearly certain of different classes: log 2.

        >>> round(js_divergence(torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]])), 4)
        0.6931
    """
    return _js(*_log_probabilities(logits, oracle_logits)).mean().item()


def kl_divergence(logits: Tensor, oracle_logits: Tensor) -> float:
    """Mean KL divergence KL(oracle ‖ model) in nats, never negative.

    Args:
        logits: `[N, K]` of the model.
        oracle_logits: `[N, K]` of the oracle on the same samples.

    Example: oracle (3/4, 1/4), model (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2).

        >>> round(kl_divergence(torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])), 4)
        0.1308
    """
    log_p, log_q = _log_probabilities(logits, oracle_logits)
    return _kl(log_q, log_p).mean().clamp(min=0.0).item()


def completeness(logits: Tensor, oracle_logits: Tensor) -> float:
    """Completeness: percent of samples on which both models predict the same class.

    Args:
        logits: `[N, K]` of the model.
        oracle_logits: `[N, K]` of the oracle on the same samples.

    Example: one of two samples.

        >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
        >>> completeness(logits, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        50.0
    """
    log_p, log_q = _log_probabilities(logits, oracle_logits)
    return 100.0 * (log_p.argmax(dim=1) == log_q.argmax(dim=1)).to(torch.float64).mean().item()


def zrf(logits: Tensor, random_logits: Tensor) -> float:
    """Zero retrain forgetting (ZRF): 1 - mean Jensen-Shannon divergence to a random model.

    In [1 - log 2, 1]; 1 = as ignorant as a random model; the goal is the oracle's value, not 1.
    Source: Chundawat et al., "Can bad teaching induce forgetting?", AAAI 2023.

    Args:
        logits: `[N, K]` of the unlearned model on forget samples.
        random_logits: `[N, K]` of the same architecture newly initialised.

    Example: equal predictions.

        >>> zrf(torch.zeros(1, 2), torch.ones(1, 2))
        1.0
    """
    return 1.0 - js_divergence(logits, random_logits)


def zrf_reference(logits: Tensor, random_logits: Tensor) -> float:
    """Zero retrain forgetting (ZRF) as the released code computes it.

    For comparison with published numbers (original 0.877, bad teaching 0.994). Both divergences
    have their arguments exchanged, KL(m‖p) and KL(m‖q), and the mean is over all N K entries
    instead of N samples. Source: vikram2000b/bad-teaching-unlearning, metrics.py. There There a
    probability that underflows gives infinity; here it does not.

    Args:
        logits: `[N, K]` of the unlearned model on forget samples.
        random_logits: `[N, K]` of the same architecture newly initialised.

    Example: equal predictions.

        >>> zrf_reference(torch.zeros(1, 2), torch.ones(1, 2))
        1.0
    """
    log_p, log_q = _log_probabilities(logits, random_logits)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 1.0 - (0.5 * (_kl(log_m, log_p) + _kl(log_m, log_q))).mean().item() / logits.shape[1]


def wasserstein1(a: Tensor, b: Tensor) -> float:
    """Wasserstein-1 distance between two multisets of real numbers, exact, in their unit.

    The sizes may differ. It is the area between the two empirical distribution functions. For equal
    sizes this is the mean |difference| of the sorted values.

    Args:
        a: `[N]`, N >= 1, finite.
        b: `[M]`, M >= 1, finite.

    Example: sorted, 0 moves to 1 and 2 to 3.

        >>> wasserstein1(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 3.0]))
        1.0
    """
    a, b = (as_finite_vector(x, "the values").sort().values for x in (a, b.to(a.device)))
    if len(a) == len(b):
        return (a - b).abs().mean().item()
    steps = torch.cat([a, b]).sort().values
    below_a, below_b = (
        torch.searchsorted(x, steps[:-1], right=True).to(torch.float64) / len(x) for x in (a, b)
    )
    return ((below_a - below_b).abs() * steps.diff()).sum().item()
