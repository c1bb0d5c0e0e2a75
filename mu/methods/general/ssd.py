"""Selective Synaptic Dampening (SSD): shrink weights that matter more to forget than to all data.

Foster, Schoepf and Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic
Dampening", AAAI 2024, arXiv 2308.07707.

    I_S = mean over batches of S of (∂ℓ_b/∂θ)²;    where I_f > α I_D:  θ ← min(λ I_D / I_f, 1) θ

The importance squares the *batch-mean* gradient (`src/ssd.py`), so it depends on the batch size; D
is all training data. Defaults: λ = 1, α = 10 (ResNet-18, all CIFAR tasks); forget batches of 128,
full batches of 64 (the code's loaders); eval mode, no augmentation; batch-norm statistics do not
change.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mu.backbones import Backbone
from mu.core.edit import Edit
from mu.core.gradients.summed import RunningSum, gradient_of
from mu.data.batch import Batch, concatenate
from mu.data.plan import Forget, Phases, Union
from mu.functional.curvature import ssd_dampen

_FORGET = 0
_ALL = 1


class SSD(Edit):
    """Dampen weights by the ratio of two importances.

    Args:
        backbone: the original.
        alpha: selection threshold α; larger edits fewer weights.
        lam: dampening constant λ.
        forget_batch_size: batch size of I_f.
        all_batch_size: batch size of I_D.
    """

    def __init__(
        self,
        backbone: Backbone,
        alpha: float = 10.0,
        lam: float = 1.0,
        forget_batch_size: int = 128,
        all_batch_size: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.alpha = alpha
        self.lam = lam
        self.plan = Phases(
            Forget(shuffle=False, batch_size=forget_batch_size), Union(batch_size=all_batch_size)
        )
        self.importance = {_FORGET: RunningSum(), _ALL: RunningSum()}

    def observe(self, forget: Batch | None, retain: Batch | None) -> None:
        """Add the squared gradient of the batch's mean loss to its phase's importance."""
        batch = concatenate(forget, retain)
        values, weight = self.backbone.loss(batch)
        gradient = gradient_of(self, values.sum() / weight.sum())
        torch._foreach_mul_(gradient, gradient)
        self.importance[self.phase].add(gradient)

    def edited(self) -> Mapping[str, Tensor]:
        """Dampened weights."""
        forget_importance = self.importance[_FORGET].mean(self)
        full_importance = self.importance[_ALL].mean(self)
        return {
            name: ssd_dampen(weight, forget, full, self.alpha, self.lam)
            for (name, weight), forget, full in zip(
                self.trainable(), forget_importance, full_importance, strict=True
            )
        }
