"""Selective Synaptic Dampening (SSD): shrink weights that matter more to forget than to all data.

Foster, Schoepf and Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic
Dampening", AAAI 2024, arXiv 2308.07707.

    I_S = mean over batches of S of (∂ℓ_b/∂θ)²;    where I_f > α I_D:  θ ← min(λ I_D / I_f, 1) θ

The importance squares the *batch-mean* gradient (`src/ssd.py`), so it depends on the batch size and
on which samples share a batch. D is all training data, read as in the released code: unshuffled,
retain and then forget as one list; where whole classes are forgotten, class by class. (Shuffled
together, the forget samples are diluted before the square, and other weights are selected: on
ResNet-20, one class of ten, α = 10, 550 weights in place of 0 or 1.)

Bound: where the forget batches occur in D too, I_f ≤ (batches of D / batches of forget) I_D, as
with squares per sample I_f ≤ (N / N_f) I_D. So α = 10 selects next to nothing where a tenth is
forgotten (the authors forget a hundredth, or 0.165 % at random); search α below N / N_f there. With
mixed batches there is no bound.

Defaults: λ = 1, α = 10 (ResNet-18, all CIFAR tasks; ViT: 5, 25 and 10); batches of 64 for whole
classes and of 128 for random samples, forget and all alike (the code's two scripts); eval mode, no
augmentation; batch-norm statistics do not change.
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
from mu.methods.bases.classes import forgets_whole_classes
from mu.utils.errors import RunError

_FORGET = 0
_ALL = 1


class SSD(Edit):
    """Dampen weights by the ratio of two importances.

    Args:
        backbone: the original.
        alpha: selection threshold α; larger edits fewer weights.
        lam: dampening constant λ.
        forget_batch_size: batch size of I_f; None takes 64 for whole classes, else 128.
        all_batch_size: batch size of I_D; None likewise.
    """

    def __init__(
        self,
        backbone: Backbone,
        alpha: float = 10.0,
        lam: float = 1.0,
        forget_batch_size: int | None = None,
        all_batch_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.alpha = alpha
        self.lam = lam
        self.forget_batch_size = forget_batch_size
        self.all_batch_size = all_batch_size
        self.plan = self._grouped(whole_classes=False)
        self.importance = {_FORGET: RunningSum(), _ALL: RunningSum()}

    def setup(self, stage: str) -> None:
        """Group the batches as the released script for this kind of task does."""
        if stage == "fit" and forgets_whole_classes(self):
            self.plan = self._grouped(whole_classes=True)
        super().setup(stage)

    def _grouped(self, whole_classes: bool) -> Phases:
        """The pass over forget, then the pass over all data."""
        usual = 64 if whole_classes else 128
        return Phases(
            Forget(
                shuffle=False, batch_size=self.forget_batch_size or usual, by_label=whole_classes
            ),
            Union(shuffle=False, batch_size=self.all_batch_size or usual, by_label=whole_classes),
        )

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
        pairs = list(zip(forget_importance, full_importance, strict=True))
        largest = max(float((f / a.clamp_min(1e-38)).max()) for f, a in pairs)
        if largest <= self.alpha:
            raise RunError(
                f"SSD selects no weight at alpha {self.alpha:g}, because no weight is more than "
                f"{largest:.4g} times as important to forget as to all data; set alpha below that."
            )
        return {
            name: ssd_dampen(weight, forget, full, self.alpha, self.lam)
            for (name, weight), (forget, full) in zip(self.trainable(), pairs, strict=True)
        }
