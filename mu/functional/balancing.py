"""Weights of loss terms: Nash bargaining of two gradients, bilevel weights, per-sample weights.

Pure functions of numbers and small tensors. No function draws, reads a model or waits for the
device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mu.functional.checks import check_same_shape


def sfr_adaptive_weights(loss: Tensor, lam: float) -> Tensor:
    """SFR-on's per-sample weights, `w_b` proportional to `1 / (l_b^lambda + 1e-15)`, of sum B.

    Samples that are already badly fitted count less in the ascent. The weights are constants: no
    gradient flows through them.

    Source: Huang et al., "Unified Gradient-Based Machine Unlearning with Remain Geometry
    Enhancement" (NeurIPS 2024), released code `AdaptiveLoss`.

    Args:
        loss: `[B]`, >= 0, as `cross_entropy` gives it.
        lam: lambda >= 0; 0 weighs all samples alike.

    Returns:
        `[B]`, in `[0, B]`. A loss of exactly 0 takes nearly all the weight.

    Example: losses 1 and 4 with lambda 1/2: 1 and 1/2, scaled to sum 2.

        >>> sfr_adaptive_weights(torch.tensor([1.0, 4.0]), 0.5)
        tensor([1.3333, 0.6667])
    """
    weight = 1 / (loss.detach().pow(lam) + 1e-15)
    return weight / weight.sum() * len(loss)


def nash_weights(
    grams: Tensor, fallback: tuple[float, float] = (1.0, 0.1)
) -> tuple[Tensor, Tensor]:
    """Nash bargaining weights of two gradients: the positive solution of `alpha * (G alpha) = 1`.

    With `a = |g_r|^2`, `b = <g_r, g_f>`, `c = |g_f|^2` and the cosine `rho = b / sqrt(ac)` it is
    `alpha_r = 1 / sqrt(a (1 + rho))`, `alpha_f = 1 / sqrt(c (1 + rho))`: the closed form of
    `munba_weights` with its common factors cancelled. Same numbers where that one is well
    conditioned, and right where it is not (orthogonal, nearly parallel or small gradients).

    Args:
        grams: `[2, 2]`, inner products of the two gradients, retain first.
        fallback: the weights where no bargain exists: a zero gradient, or exactly opposed ones.

    Returns:
        `(alpha_r, alpha_f)`, two positive scalars.

    Example: orthogonal gradients of norms 2 and 5 are both brought to norm 1.

        >>> [round(w.item(), 4) for w in nash_weights(torch.tensor([[4.0, 0.0], [0.0, 25.0]]))]
        [0.5, 0.2]
    """
    a = grams[0, 0]
    b = grams[0, 1]
    c = grams[1, 1]
    share = 1 + b / (a.sqrt() * c.sqrt())  # two roots: the product a c could overflow
    return _or_fallback((a * share).rsqrt(), (c * share).rsqrt(), fallback)


def munba_weights(
    grams: Tensor, fallback: tuple[float, float] = (1.0, 0.1), stabiliser: float = 1e-8
) -> tuple[Tensor, Tensor]:
    """Nash bargaining weights in MUNBa's closed form, with a constant in the denominators.

    `alpha_r = sqrt((ac - b sqrt(ac)) / (a^2 c - a b^2 + s))`, `alpha_f = (1 - a alpha_r^2) / (b
    alpha_r + s)`, in the notation of `nash_weights`; where either is not positive, the fallback
    `loss_r + 0.1 loss_f`.

    The exact solution is always positive; the fallback comes from `s` and from rounding alone. `s`
    is as large as `a^2 c` at gradient norms of 0.05, and for orthogonal gradients `alpha_f` is `1 /
    (a^2 c + s)` instead of `1 / sqrt(c)`. `nash_weights` is the solution itself; this function
    reproduces the released code.

    Source: Wu and Harandi, "MUNBa: Machine Unlearning via Nash Bargaining", released code `munba`.

    Args:
        grams: `[2, 2]`, inner products of the two gradients, retain first.
        fallback: the weights where the bargain fails.
        stabiliser: s.

    Returns:
        `(alpha_r, alpha_f)`, two positive scalars.

    Example: a = c = 1, b = 1/2: alpha^2 = (1 - 1/2) / (1 - 1/4) = 2/3 for both.

        >>> [round(w.item(), 4) for w in munba_weights(torch.tensor([[1.0, 0.5], [0.5, 1.0]]))]
        [0.8165, 0.8165]
    """
    a = grams[0, 0]
    b = grams[0, 1]
    c = grams[1, 1]
    alpha_r = ((a * c - b * (a * c).sqrt()) / (a * a * c - a * b * b + stabiliser)).sqrt()
    alpha_f = (1 - a * alpha_r.square()) / (b * alpha_r + stabiliser)
    return _or_fallback(alpha_r, alpha_f, fallback)


def _or_fallback(
    alpha_r: Tensor, alpha_f: Tensor, fallback: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    # no `if`: a comparison on the host would wait for the device in every step
    good = (alpha_r > 0) & (alpha_f > 0) & alpha_r.isfinite() & alpha_f.isfinite()
    return torch.where(good, alpha_r, fallback[0]), torch.where(good, alpha_f, fallback[1])


def bome_weight(objective: Tensor, constraint: Tensor, eta: float) -> Tensor:
    """Weight of a constraint's gradient in bilevel optimisation, `max(0, eta - <g, q> / |q|^2)`.

    The step `g + weight q` then lowers the constraint at a rate of at least `eta |q|^2`, and is the
    closest such step to g.

    Source: Liu et al., "BOME! Bilevel Optimization Made Easy" (NeurIPS 2022, arXiv 2209.08709),
    with control barrier `eta |q|^2`; used by EraseDiff (arXiv 2401.05779).

    Args:
        objective: g, gradient of the upper objective, flat `[P]`.
        constraint: q, gradient of the constraint, `[P]`.
        eta: > 0.

    Returns:
        A scalar, >= 0; 0 where the constraint has no gradient.

    Example: <g, q> = -2 and |q|^2 = 4: 1/2 + 1/2.

        >>> bome_weight(torch.tensor([-1.0, 2.0]), torch.tensor([2.0, 0.0]), 0.5)
        tensor(1.)
    """
    check_same_shape("bome_weight", objective, constraint)
    square = constraint.square().sum()
    return torch.where(
        square > 0, (eta - (objective * constraint).sum() / square).clamp_min(0), 0.0
    )


def cosine_weight(objective: Tensor, constraint: Tensor, eta: float) -> Tensor:
    """Weight of a constraint's gradient in EraseDiff's code, `max(0, eta - cos(g, q))`.

    1e-8 is added to the product of the norms. Source: the released code of EraseDiff (arXiv
    2401.05779); `bome_weight` is the paper's.

    Args:
        objective: g, `[P]`.
        constraint: q, `[P]`.
        eta: > 0.

    Returns:
        A scalar in `[0, 1 + eta]`; 0 where the constraint has no gradient.

    Raises:
        InputError: the shapes differ.

    Example: opposed gradients: 1/2 + 1.

        >>> cosine_weight(torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 0.0]), 0.5)
        tensor(1.5000)
    """
    check_same_shape("cosine_weight", objective, constraint)
    norm = constraint.norm()
    cosine = (objective * constraint).sum() / (objective.norm() * norm + 1e-8)
    return torch.where(norm > 0, (eta - cosine).clamp_min(0), 0.0)
