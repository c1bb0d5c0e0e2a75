"""Attacks on pixels within an L∞ ball: the fast gradient sign step, and its iteration.

Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015, arXiv
1412.6572. Madry, Makelov, Schmidt, Tsipras and Vladu, "Towards Deep Learning Models Resistant to
Adversarial Attacks", ICLR 2018, arXiv 1706.06083.

    FGSM: x' = clip(x + ε sign ∇_x J(x), 0, 1)
    PGD:  x_{t+1} = clip(Π_{‖x_{t+1} − x‖∞ ≤ ε}(x_t + η sign ∇J(x_t)), 0, 1)

J is the criterion's objective. Pixels are in [0, 1] and not normalised, because the network
normalises them itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mu.attacks.base import Attack, AttackResult, Criterion
from mu.backbones import Backbone
from mu.functional.checks import check_same_shape
from mu.utils import rng
from mu.utils.errors import InputError


class FGSM(Attack):
    """Fast gradient sign attack: one step along the sign of the gradient.

    Args:
        epsilon: step in pixel units, in [0, 1]; 0.1 in Boundary Unlearning (Chen et al., CVPR
            2023).
        round_to_255: round to the 256 levels of a stored image, as the copy in SalUn's repository
            does.
    """

    def __init__(self, epsilon: float = 0.1, round_to_255: bool = False) -> None:
        _check_epsilon(epsilon)
        self.epsilon = epsilon
        self.round_to_255 = round_to_255

    def run(self, backbone: Backbone, batch: dict[str, Any], criterion: Criterion) -> AttackResult:
        """Attack a copied batch, see `Attack.run`."""
        gradient = _gradient(backbone, batch, batch["image"], criterion)
        batch["image"] = fgsm(batch["image"], gradient, self.epsilon, self.round_to_255)
        return self.judged(backbone, batch, criterion)


class PGD(Attack):
    """Projected gradient attack within an L∞ ball, from random starts.

    Each sample keeps the first restart that succeeded (the last one if none did); the search ends
    when all have succeeded.

    Args:
        epsilon: radius of the L∞ ball in pixel units, in [0, 1].
        steps: gradient steps of each restart, at least 1.
        step_size: η in pixel units, > 0.
        restarts: random starts, at least 1.
        random_start: begin at a uniform point of the ball; without it every restart is the same, so
            there may be only one.
        seed: decides the starts, for each sample by its `index`.
    """

    def __init__(
        self,
        epsilon: float = 8 / 255,
        steps: int = 20,
        step_size: float = 2 / 255,
        restarts: int = 1,
        random_start: bool = True,
        seed: int = 0,
    ) -> None:
        _check_epsilon(epsilon)
        if steps < 1 or restarts < 1 or not step_size > 0:
            raise InputError(
                "PGD needs at least one step and one restart and a positive step size, not "
                f"{steps}, {restarts}, {step_size}."
            )
        if restarts > 1 and not random_start:
            raise InputError(
                "several restarts of PGD need random_start, because without it they are all the "
                "same."
            )
        self.epsilon = epsilon
        self.steps = steps
        self.step_size = step_size
        self.restarts = restarts
        self.random_start = random_start
        self.seed = seed

    def run(self, backbone: Backbone, batch: dict[str, Any], criterion: Criterion) -> AttackResult:
        """Attack a copied batch, see `Attack.run`."""
        best: AttackResult | None = None
        for restart in range(self.restarts):
            result = self.judged(
                backbone,
                {**batch, "image": self._climb(backbone, batch, criterion, restart)},
                criterion,
            )
            best = result if best is None else _better(best, result)
            if bool((best.success | batch["padded"] if "padded" in batch else best.success).all()):
                break
        assert best is not None
        return best

    def _climb(
        self, backbone: Backbone, batch: dict[str, Any], criterion: Criterion, restart: int
    ) -> Tensor:
        clean = batch["image"]
        image = clean
        if self.random_start:
            start = rng.uniform(
                self.seed, batch["index"], restart, "pgd-start", *clean.shape[1:]
            ).to(clean.dtype)
            image = (clean + self.epsilon * (2 * start - 1)).clamp(0, 1)
        for _ in range(self.steps):
            moved = image + self.step_size * _gradient(backbone, batch, image, criterion).sign()
            image = moved.clamp(clean - self.epsilon, clean + self.epsilon).clamp(0, 1)
        return image


def _better(first: AttackResult, second: AttackResult) -> AttackResult:
    """Results by sample: the first one where it succeeded, else the second."""
    first_wins = first.success
    image = torch.where(
        first_wins.view(-1, 1, 1, 1), first.adversarial["image"], second.adversarial["image"]
    )
    prediction = torch.where(
        first_wins.view(-1, *[1] * (first.prediction.ndim - 1)), first.prediction, second.prediction
    )
    return AttackResult(
        {**second.adversarial, "image": image}, first_wins | second.success, prediction
    )


def _gradient(
    backbone: Backbone, batch: dict[str, Any], image: Tensor, criterion: Criterion
) -> Tensor:
    """Gradient of each sample's objective by its pixels; gradients of weights stay unchanged."""
    pixels = image.detach().requires_grad_(True)
    objective = criterion.objective(backbone.predict({**batch, "image": pixels}), batch)
    return torch.autograd.grad(objective.sum(), pixels)[0]


def _check_epsilon(epsilon: float) -> None:
    if not 0 <= epsilon <= 1:
        raise InputError(
            f"epsilon is {epsilon}; in pixel units it lies between 0 and 1 (8/255 is 0.031)."
        )


def fgsm(image: Tensor, gradient: Tensor, epsilon: float, round_to_255: bool = False) -> Tensor:
    """Fast gradient sign step: `clip(x + epsilon sign(g), 0, 1)`.

    Source: Goodfellow et al. (arXiv 1412.6572), as used by Boundary Shrink (Chen et al., CVPR 2023,
    arXiv 2303.11570) with epsilon 0.1. The copy in SalUn's repository also rounds to multiples of
    1/255.

    Args:
        image: pixels in `[0, 1]`, not normalised.
        gradient: gradient of the loss to be increased, of the same shape.
        epsilon: step in pixel units, >= 0.
        round_to_255: round to the 256 levels of a stored image.

    Returns:
        The shape of `image`, in `[0, 1]`.

    Example:
        >>> fgsm(torch.tensor([0.05, 0.5, 0.95]), torch.tensor([-2.0, 0.0, 2.0]), 0.1)
        tensor([0.0000, 0.5000, 1.0000])
    """
    check_same_shape("fgsm", image, gradient)
    moved = (image + epsilon * gradient.sign()).clamp(0, 1)
    return (moved * 255).round() / 255 if round_to_255 else moved
