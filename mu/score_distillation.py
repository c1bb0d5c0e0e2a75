"""Losses of score identity distillation (SiD) and score forgetting distillation (SFD): pure functions, one value per example.

Zhou et al., "Score identity Distillation: Exponentially Fast Distillation of Pretrained Diffusion Models for One-Step Generation", ICML
2024, arXiv 2404.04057. Chen et al., "Score Forgetting Distillation: A Swift, Data-Free Method for Machine Unlearning in Diffusion Models",
ICLR 2025, arXiv 2409.11219.

x̂_0 is what the generator draws, x_t its noised version; x_φ and x_ψ are what the teacher and the fake score say x_0 is, given x_t.
"""

from __future__ import annotations

from torch import Tensor

from mu.errors import InputError


def fake_score_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """‖ε_ψ(x_t) − ε‖², added up over the elements: the denoising loss by which the fake score follows the generator.

    Args:
        prediction: `[B, ...]`, the fake score's output.
        target: the same shape, what it should be.

    Returns:
        `[B]`, in `[0, inf)`.
    """
    _same_shape(prediction, target)
    return (prediction - target).square().flatten(1).sum(1)


def sid_loss(teacher: Tensor, fake: Tensor, generated: Tensor, alpha: float = 1.2, floor: float = 1e-5) -> Tensor:
    """`Σ (x_φ − x_ψ) ⊙ ((x_φ − x̂_0) − α (x_φ − x_ψ)) / ω`, `ω = mean |x_φ − x̂_0|` without gradient and at least `floor`.

    Gradients flow through all three, as far as they carry any. Where both denoisers are cut off and α is 1, the gradient is that of
    Diff-Instruct, (x_ψ − x_φ) / ω. In SFD's forget term the teacher is asked under the override condition.

    Args:
        teacher: x_φ `[B, ...]`.
        fake: x_ψ, the same shape.
        generated: x̂_0, the same shape.
        alpha: α; 1 makes it `Σ (x_φ − x_ψ) ⊙ (x_ψ − x̂_0) / ω`.
        floor: smallest ω.

    Returns:
        `[B]`, of either sign; 0 where teacher and fake score agree.
    """
    _same_shape(teacher, fake)
    _same_shape(teacher, generated)
    gap = teacher - fake
    weight = (teacher - generated).detach().abs().flatten(1).mean(1).clamp_min(floor)
    return (gap * ((teacher - generated) - alpha * gap)).flatten(1).sum(1) / weight


def _same_shape(first: Tensor, other: Tensor) -> None:
    if first.shape != other.shape:
        raise InputError(f"losses of score distillation compare tensors of one shape, not {tuple(first.shape)} and {tuple(other.shape)}.")
