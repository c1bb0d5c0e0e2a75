"""Selective Synaptic Dampening (SSD): shrink the weights that matter more to the forget set than to
everything.

Foster, Schoepf and Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic
Dampening", AAAI 2024, arXiv 2308.07707.

    I_S = mean over batches of S of (∂ℓ_b/∂θ)²;    where I_f > α I_D:  θ ← min(λ I_D / I_f, 1) θ

The importance squares the *batch-mean* gradient (`src/ssd.py`), so it depends on the batch size; D
is all training data. Defaults: λ = 1, α = 10 (ResNet-18, all CIFAR tasks); forget batches of 128,
full batches of 64 (the code's loaders); eval mode, no augmentation; batch-norm statistics are not
touched.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mu.backbones import Backbone
from mu.core.edit import Edit
from mu.core.gradients.summed import gradient_of
from mu.data.batch import Batch, concatenate
from mu.data.plan import Forget, Phases, Union
from mu.functional.curvature import ssd_dampen

_FORGET = 0
_ALL = 1


class SSD(Edit):
    """Dampen by the ratio of two importances.

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
        self._squares: dict[int, list[Tensor]] = {}
        self._batches = {_FORGET: 0, _ALL: 0}

    def observe(self, forget: Batch | None, retain: Batch | None) -> None:
        """Add the squared gradient of the batch's mean loss to its phase's importance."""
        batch = concatenate(forget, retain)
        values, weight = self.backbone.loss(batch)
        gradient = gradient_of(self, values.sum() / weight.sum())
        torch._foreach_mul_(gradient, gradient)
        if self.phase in self._squares:
            torch._foreach_add_(self._squares[self.phase], gradient)
        else:
            self._squares[self.phase] = gradient
        self._batches[self.phase] += 1

    def edited(self) -> Mapping[str, Tensor]:
        """Dampened weights."""
        of_forget = self._importance(_FORGET)
        of_all = self._importance(_ALL)
        return {
            name: ssd_dampen(p, f, a, self.alpha, self.lam)
            for (name, p), f, a in zip(self.trainable(), of_forget, of_all, strict=True)
        }

    def _importance(self, phase: int) -> list[Tensor]:
        # this rank may have had no batch
        squares = self._squares.get(phase) or [torch.zeros_like(p) for _, p in self.trainable()]
        *sums, count = self.sum_over_ranks(
            [*squares, torch.tensor(float(self._batches[phase]), device=self.device)]
        )
        return [value / count for value in sums]
