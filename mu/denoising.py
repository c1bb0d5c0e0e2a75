"""Targets, penalties and closed forms of diffusion unlearning: pure functions on tensors.

Outputs of a denoiser are `[B, ...]` in its own parametrisation (ε, v or x_0), whatever it is: the coefficients of every target here add
up to 1, so that a target of ε is one of v too. A *target* is data: pass it without gradient. Nothing here looks at a model or draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mu.errors import InputError

# ---------------------------------------------------------------- targets


def esd_target(conditional: Tensor, unconditional: Tensor, eta: float) -> Tensor:
    """ESD's negatively guided target `o_∅ - eta (o_c - o_∅)`.

    Source: Gandikota et al., "Erasing Concepts from Diffusion Models" (ICCV 2023, arXiv 2303.07345), equation 7.

    Args:
        conditional: the frozen model's output under the concept, `[B, ...]`.
        unconditional: its output under the null condition, the same shape.
        eta: strength; 0 is the unconditional output, -1 the conditional one.

    Returns:
        The shape of the outputs.

    Example: away from the concept by as much as it pulls.

        >>> esd_target(torch.tensor([3.0]), torch.tensor([1.0]), 1.0)
        tensor([-1.])
    """
    _alike("esd_target", conditional, unconditional)
    return unconditional - eta * (conditional - unconditional)


def esd_from_target(kept: Tensor, conditional: Tensor, unconditional: Tensor, eta: float) -> Tensor:
    """Target of ESD's rewrite of 2025, `o_from - eta (o_c - o_∅)`: the concept is taken out of another prompt.

    With the concept itself for the prompt it is `esd_target` of `eta - 1`. The coefficients add up to 1.

    Source: `esd_sd.py` of the authors' repository.

    Args:
        kept: the frozen model's output under the prompt to erase from, `[B, ...]`.
        conditional: under the concept, the same shape.
        unconditional: under the null condition, the same shape.
        eta: strength.

    Returns:
        The shape of the outputs.

    Example:
        >>> esd_from_target(torch.tensor([3.0]), torch.tensor([3.0]), torch.tensor([1.0]), 2.0)
        tensor([-1.])
    """
    _alike("esd_from_target", kept, conditional, unconditional)
    return kept - eta * (conditional - unconditional)


# ---------------------------------------------------------------- weights of two objectives


def bome_weight(objective: Tensor, constraint: Tensor, eta: float) -> Tensor:
    """Weight of a constraint's gradient in first-order bilevel optimisation: `max(0, eta - <g, q> / |q|^2)`.

    The step `g + weight q` then lowers the constraint at a rate of at least `eta |q|^2`, and is the closest such step to g.

    Source: Liu et al., "BOME! Bilevel Optimization Made Easy" (NeurIPS 2022, arXiv 2209.08709), with control barrier `eta |q|^2`;
    used by EraseDiff (arXiv 2401.05779).

    Args:
        objective: g, gradient of the upper objective, flat `[P]`.
        constraint: q, gradient of the constraint, `[P]`.
        eta: > 0.

    Returns:
        A scalar, >= 0; 0 where the constraint has no gradient.

    Example: opposed gradients.

        >>> bome_weight(torch.tensor([-1.0, 2.0]), torch.tensor([2.0, 0.0]), 0.5)
        tensor(1.)
    """
    _alike("bome_weight", objective, constraint)
    square = constraint.square().sum()
    return torch.where(square > 0, (eta - (objective * constraint).sum() / square).clamp_min(0), 0.0)


def cosine_weight(objective: Tensor, constraint: Tensor, eta: float) -> Tensor:
    """The same in the released code of EraseDiff: `max(0, eta - cos(g, q))`, with 1e-8 added to the product of the norms.

    Args:
        objective: g, `[P]`.
        constraint: q, `[P]`.
        eta: > 0.

    Returns:
        A scalar in `[0, 1 + eta]`; 0 where the constraint has no gradient.
    """
    _alike("cosine_weight", objective, constraint)
    norm = constraint.norm()
    cosine = (objective * constraint).sum() / (objective.norm() * norm + 1e-8)
    return torch.where(norm > 0, (eta - cosine).clamp_min(0), 0.0)


def quadratic_penalty(weights: Sequence[Tensor], anchors: Sequence[Tensor], importance: Sequence[Tensor]) -> Tensor:
    """Elastic pull `sum_i F_i (theta_i - theta*_i)^2` over all entries of all tensors, not averaged and without the half of EWC's paper.

    Source: Kirkpatrick et al., "Overcoming Catastrophic Forgetting in Neural Networks" (PNAS 2017, arXiv 1612.00796), as used by
    Selective Amnesia (Heng and Soh, NeurIPS 2023, arXiv 2305.10120).

    Args:
        weights: theta, tensors of any shapes on one device.
        anchors: theta*, tensors of the same shapes.
        importance: F >= 0, tensors of the same shapes.

    Returns:
        A scalar, >= 0.

    Example:
        >>> quadratic_penalty([torch.tensor([3.0, 1.0])], [torch.tensor([1.0, 1.0])], [torch.tensor([0.5, 7.0])])
        tensor(2.)
    """
    terms = [(f * (w - a).square()).sum() for w, a, f in zip(weights, anchors, importance, strict=True)]
    return torch.stack(terms).sum()


# ---------------------------------------------------------------- cross-attention edits


def uce_update(weight: Tensor, gram: Tensor, change: Tensor) -> Tensor:
    """The edited projection of UCE, from sums over its keys: `W + W S M^{-1}`, in float64.

    UCE minimises `a sum_i |W' c_i - W g_i|^2 + b sum_j |W' p_j - W p_j|^2 + lambda |W' - W|_F^2`, whose solution
    `(lambda W + a sum W g c^T + b sum W p p^T) M^{-1}` with `M = lambda I + a sum c c^T + b sum p p^T` is the same as
    `W + W S M^{-1}` with `S = a sum (g - c) c^T`. In this form an edit of nothing leaves W as it is, bit for bit; and M and S are
    those of every layer.

    Source: Gandikota et al., "Unified Concept Editing in Diffusion Models" (WACV 2024, arXiv 2308.14761), equation 7.

    Args:
        weight: W, `[O, D]`, of any floating dtype.
        gram: M, `[D, D]` float64, symmetric and positive definite.
        change: S, `[D, D]` float64.

    Returns:
        `[O, D]`, in the dtype of the weight.

    Raises:
        InputError: the layer reads keys of another width than D.
    """
    if weight.shape[-1] != gram.shape[0]:
        raise InputError(f"a projection of keys of width {weight.shape[-1]} cannot be edited by keys of width {gram.shape[0]}.")
    if not change.any():
        return weight.clone()
    wide = weight.to(gram.dtype)
    return (wide + torch.linalg.solve(gram, (wide @ change).mT).mT).to(weight.dtype)


def uce_sums(keys: Tensor, guides: Tensor, preserved: Tensor, lam: float, erase: float, preserve: float) -> tuple[Tensor, Tensor]:
    """M and S of `uce_update` for keys that are all at hand.

    Args:
        keys: c, `[N, D]`.
        guides: g, `[N, D]`.
        preserved: p, `[R, D]`.
        lam: λ > 0, how dear a change of the weights is.
        erase: a >= 0.
        preserve: b >= 0.

    Returns:
        `(M, S)`, each `[D, D]` float64.
    """
    c, g, p = keys.double(), guides.double(), preserved.double()
    identity = torch.eye(c.shape[-1], dtype=torch.float64, device=c.device)
    return lam * identity + erase * c.mT @ c + preserve * p.mT @ p, erase * (g - c).mT @ c


# ---------------------------------------------------------------- helpers


def _alike(name: str, first: Tensor, *others: Tensor) -> None:
    for other in others:
        if other.shape != first.shape:
            raise InputError(f"{name} needs tensors of one shape, but got {tuple(first.shape)} and {tuple(other.shape)}.")
