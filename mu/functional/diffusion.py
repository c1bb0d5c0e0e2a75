"""Targets, losses and closed-form edits of diffusion unlearning.

Pure functions on tensors. Outputs of a denoiser are `[B, ...]` in its own parametrisation (ε, v or
x_0), whatever it is: the coefficients of every target here add up to 1, so that a target of ε is
one of v too. A *target* is data: pass it without gradient. No function reads a model or draws.

Score identity distillation (SiD): Zhou et al., "Score identity Distillation: Exponentially Fast
Distillation of Pretrained Diffusion Models for One-Step Generation", ICML 2024, arXiv 2404.04057.
Score forgetting distillation (SFD): Chen et al., ICLR 2025, arXiv 2409.11219. In their losses x̂_0
is the generator's image, x_t its noised version; x_φ and x_ψ are the teacher's and the fake
score's x_0 given x_t.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mu.functional.checks import check_same_shape
from mu.utils.errors import InputError

# ---------------------------------------------------------------- targets


def esd_target(conditional: Tensor, unconditional: Tensor, eta: float) -> Tensor:
    """ESD's negatively guided target, `o_∅ - eta (o_c - o_∅)`.

    Source: Gandikota et al., "Erasing Concepts from Diffusion Models" (ICCV 2023, arXiv
    2303.07345), equation 7.

    Args:
        conditional: the frozen model's output under the concept, `[B, ...]`.
        unconditional: its output under the null condition, the same shape.
        eta: strength; 0 is the unconditional output, -1 the conditional one.

    Returns:
        The shape of the outputs.

    Example: 1 - (3 - 1).

        >>> esd_target(torch.tensor([3.0]), torch.tensor([1.0]), 1.0)
        tensor([-1.])
    """
    check_same_shape("esd_target", conditional, unconditional)
    return unconditional - eta * (conditional - unconditional)


def esd_from_target(kept: Tensor, conditional: Tensor, unconditional: Tensor, eta: float) -> Tensor:
    """Target of ESD's rewrite of 2025, `o_from - eta (o_c - o_∅)`, for another prompt's output.

    With the concept itself for the prompt it is `esd_target` of `eta - 1`. The coefficients add up
    to 1.

    Source: `esd_sd.py` of the authors' repository.

    Args:
        kept: the frozen model's output under the prompt to erase from, `[B, ...]`.
        conditional: under the concept, the same shape.
        unconditional: under the null condition, the same shape.
        eta: strength.

    Returns:
        The shape of the outputs.

    Example: 3 - 2 (3 - 1).

        >>> esd_from_target(torch.tensor([3.0]), torch.tensor([3.0]), torch.tensor([1.0]), 2.0)
        tensor([-1.])
    """
    check_same_shape("esd_from_target", kept, conditional, unconditional)
    return kept - eta * (conditional - unconditional)


# ---------------------------------------------------------------- cross-attention edits


def uce_update(weight: Tensor, gram: Tensor, change: Tensor) -> Tensor:
    """UCE's edited projection from sums over its keys, `W + W S M^{-1}` in float64.

    UCE minimises `a sum_i |W' c_i - W g_i|^2 + b sum_j |W' p_j - W p_j|^2 + lambda |W' - W|_F^2`,
    whose solution `(lambda W + a sum W g c^T + b sum W p p^T) M^{-1}` with `M = lambda I + a sum c
    c^T + b sum p p^T` is the same as `W + W S M^{-1}` with `S = a sum (g - c) c^T`. In this form an
    edit of nothing leaves W as it is, bit for bit; and M and S are those of every layer.

    Source: Gandikota et al., "Unified Concept Editing in Diffusion Models" (WACV 2024, arXiv
    2308.14761), equation 7.

    Args:
        weight: W, `[O, D]`, of any floating dtype.
        gram: M, `[D, D]` float64, symmetric and positive definite.
        change: S, `[D, D]` float64.

    Returns:
        `[O, D]`, in the dtype of the weight.

    Raises:
        InputError: the layer reads keys of another width than D.

    Example: one key c = 1 guided to g = 3, lambda = a = 1: S = 2, M = 2, so W' = 1 + 2 / 2.

        >>> gram, change = torch.tensor([[2.0]]).double(), torch.tensor([[2.0]]).double()
        >>> uce_update(torch.tensor([[1.0]]), gram, change)
        tensor([[2.]])
    """
    if weight.shape[-1] != gram.shape[0]:
        raise InputError(
            f"a projection of keys of width {weight.shape[-1]} cannot be edited by keys of width "
            f"{gram.shape[0]}."
        )
    if not change.any():
        return weight.clone()
    wide = weight.to(gram.dtype)
    return (wide + torch.linalg.solve(gram, (wide @ change).mT).mT).to(weight.dtype)


def uce_sums(
    keys: Tensor, guides: Tensor, preserved: Tensor, lam: float, erase: float, preserve: float
) -> tuple[Tensor, Tensor]:
    """Sums M and S over keys and guides, as `uce_update` takes them.

    Args:
        keys: c, `[N, D]`.
        guides: g, `[N, D]`.
        preserved: p, `[R, D]`.
        lam: λ > 0, price of a change of the weights.
        erase: a >= 0.
        preserve: b >= 0.

    Returns:
        `(M, S)`, both `[D, D]` float64.

    Example: one key 1 guided to 3, and one preserved key 2: M = 1 + 1 + 4, S = 3 - 1.

        >>> c, g, p = torch.tensor([[1.0]]), torch.tensor([[3.0]]), torch.tensor([[2.0]])
        >>> [x.item() for x in uce_sums(c, g, p, lam=1.0, erase=1.0, preserve=1.0)]
        [6.0, 2.0]
    """
    c = keys.double()
    g = guides.double()
    p = preserved.double()
    identity = torch.eye(c.shape[-1], dtype=torch.float64, device=c.device)
    return lam * identity + erase * c.mT @ c + preserve * p.mT @ p, erase * (g - c).mT @ c


# ---------------------------------------------------------------- score distillation


def fake_score_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Denoising loss of the fake score, `‖ε_ψ(x_t) − ε‖²` summed over the elements.

    Args:
        prediction: `[B, ...]`, the fake score's output.
        target: the same shape, the noise (or v, x_0) of the generator's images.

    Returns:
        `[B]`, in `[0, inf)`.

    Raises:
        InputError: the shapes differ.

    Example: 1 + 4.

        >>> fake_score_loss(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2))
        tensor([5.])
    """
    check_same_shape("fake_score_loss", prediction, target)
    return (prediction - target).square().flatten(1).sum(1)


def sid_loss(
    teacher: Tensor, fake: Tensor, generated: Tensor, alpha: float = 1.2, floor: float = 1e-5
) -> Tensor:
    """Score identity distillation loss of a generator.

    `Σ (x_φ − x_ψ) ⊙ ((x_φ − x̂_0) − α (x_φ − x_ψ)) / ω` with `ω = mean |x_φ − x̂_0|`, without
    gradient and at least `floor`.

    Gradients flow through all three inputs. Where both denoisers are cut off and
    α is 1, the gradient is that of Diff-Instruct, (x_ψ − x_φ) / ω. In SFD's forget term x_φ is
    computed under the override condition.

    Args:
        teacher: x_φ `[B, ...]`.
        fake: x_ψ, the same shape.
        generated: x̂_0, the same shape.
        alpha: α; 1 makes it `Σ (x_φ − x_ψ) ⊙ (x_ψ − x̂_0) / ω`.
        floor: smallest ω.

    Returns:
        `[B]`, of either sign; 0 where teacher and fake score agree.

    Raises:
        InputError: the shapes differ.

    Example: x_φ = 3, x_ψ = 1, x̂_0 = 1, α = 1/2: 2 (2 - 1) / 2.

        >>> one = torch.tensor([[1.0]])
        >>> sid_loss(3 * one, one, one, alpha=0.5)
        tensor([1.])
    """
    check_same_shape("sid_loss", teacher, fake, generated)
    gap = teacher - fake
    weight = (teacher - generated).detach().abs().flatten(1).mean(1).clamp_min(floor)
    return (gap * ((teacher - generated) - alpha * gap)).flatten(1).sum(1) / weight
