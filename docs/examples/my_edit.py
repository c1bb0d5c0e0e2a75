"""One Newton-like step in closed form: the weights move along the forget gradient at once."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mu.backbones import Backbone
from mu.core import Edit
from mu.data import Batch, Forget


class OneStepAscent(Edit):
    """`θ + η ∇ℓ(D_f; θ)`, with the gradient of the mean loss over the whole forget set.

    Args:
        backbone: the original.
        rate: η > 0.
    """

    plan = Forget(shuffle=False)

    def __init__(self, backbone: Backbone, rate: float = 0.01, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.rate = rate
        self.gradients: dict[str, Tensor] = {}

    def observe(self, forget: Batch | None, retain: Batch | None) -> None:
        """Add the gradient of one batch's summed loss."""
        names, weights = zip(*self.trainable(), strict=True)
        loss = self.backbone.loss(forget or {})[0].sum() / len(self.task.split.parts["forget"])
        for name, gradient in zip(names, torch.autograd.grad(loss, weights), strict=True):
            self.gradients[name] = self.gradients.get(name, 0) + gradient

    def edited(self) -> Mapping[str, Tensor]:
        """The new weights by name, the gradient added up over ranks."""
        gradients = self.sum_over_ranks(self.gradients.values())
        moves = dict(zip(self.gradients, gradients, strict=True))
        return {name: w + self.rate * moves[name] for name, w in self.trainable()}
