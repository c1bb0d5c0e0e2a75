"""Influence unlearning (IU): one Newton step from the full loss to the retain loss.

The Hessian is a Fisher matrix. Izzo, Smart, Chaudhuri and Zou, "Approximate Data Deletion from
Machine Learning Models", AISTATS 2021, arXiv 2002.10077; in the form of Jia et al., "Model Sparsity
Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934. The inverse is that of WoodFisher
(Singh and Alistarh, NeurIPS 2020, arXiv 2004.14340).

    θ_u = θ_o + α H⁻¹ v,    v = ∇ℓ(D) − ∇ℓ(D_r) = (N_f / N)(ḡ_f − ḡ_r)
    H = λ I + (1/n) Σ_i g_i g_iᵀ over n retain samples

The released code runs another recursion, which is not this inverse:
`mu.methods.compat.InfluenceReference`. Defaults: α = 1 (the Newton step; the authors tune it), n =
128 (ours: see `samples`). Eval mode, no augmentation; batch-norm statistics do not change.

Damping: the n samples leave most directions without curvature, and there the step is v / λ, so the
right λ is that of the network: 0.0027 for a ResNet-8 on the digits, 0.3 for a ResNet-20 on
CIFAR-10, which 0.01 destroys (one class forgotten: retain accuracy 10.5 %; λ = 0.32: 98.0 %, and
46 % on the class). By default λ begins at the largest eigenvalue of the curvature and falls by
10^(1/4) as long as the step raises the mean loss of the n retain samples by at most `loss_rise`,
0.1 nats (ours).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from mu.backbones import Backbone
from mu.core.gradients.per_sample import Choice
from mu.core.gradients.summed import RunningSum, gradient_of
from mu.data.batch import Batch
from mu.data.plan import Forget, Phases, Retain
from mu.functional.curvature import FisherSpectrum, WoodFisher, smallest_damping
from mu.methods.bases.sample_curvature import SampleCurvatureEdit
from mu.utils.errors import InputError

_FORGET = 0
_RETAIN = 1


class Influence(SampleCurvatureEdit):
    """A Newton step of gradients from all ranks; rank 0 builds the inverse and shares the step.

    Args:
        backbone: the original.
        alpha: step α; 1 is the Newton step.
        damping: λ > 0; smaller values move further where the samples have no curvature. None takes
            the smallest one under which the retain samples keep their loss, see above.
        samples: n, random retain samples for H (all of them where there are fewer). Rank 0 keeps n
            numbers for each trainable weight: 128 samples take 0.14 GB for ResNet-20 and 5.7 GB for
            ResNet-18 in float32.
        batch_size: samples whose gradients are computed at once, each of the size of the weights.
        loss_rise: how much the mean loss of the retain samples may rise where λ is not given, > 0.
        per_sample: how per-sample gradients are computed, see `mu.core.gradients.per_sample`.
    """

    shard = "rows"

    def __init__(
        self,
        backbone: Backbone,
        alpha: float = 1.0,
        damping: float | None = None,
        samples: int = 128,
        batch_size: int = 16,
        loss_rise: float = 0.1,
        per_sample: Choice = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, samples, batch_size, per_sample, **kwargs)
        positive = (loss_rise, *([] if damping is None else [damping]))
        if samples < 1 or batch_size < 1 or not all(value > 0 for value in positive):
            raise InputError(
                "influence needs samples and batch_size of at least 1 and a positive damping and "
                f"loss_rise, not {samples}, {batch_size}, {damping} and {loss_rise}."
            )
        self.alpha = alpha
        self.damping = damping
        self.loss_rise = loss_rise
        self.plan = Phases(Forget(shuffle=False), Retain(shuffle=False))
        self.sums = {_FORGET: RunningSum(), _RETAIN: RunningSum()}

    def observe(self, forget: Batch | None, retain: Batch | None) -> None:
        """Add the batch's gradient, weight and number of samples to its part's sums."""
        part = forget if retain is None else retain
        assert part is not None
        values, weight = self.backbone.loss(part)
        gradient = gradient_of(self, values.sum())
        count = (weight > 0).sum().to(weight)
        self.sums[self.phase].add([*gradient, weight.sum().detach(), count])

    def edited(self) -> Mapping[str, Tensor]:
        """Weights after the Newton step."""
        # v, the difference of two mean gradients
        *forget_gradients, forget_weight, _ = self.sums[_FORGET].total(self)
        *retain_gradients, retain_weight, count = self.sums[_RETAIN].total(self)
        weight = forget_weight + retain_weight
        differences = [
            forget / weight - retain * forget_weight / (weight * retain_weight)
            for forget, retain in zip(forget_gradients, retain_gradients, strict=True)
        ]
        vector = torch.cat([difference.flatten() for difference in differences])
        # H⁻¹ v on rank 0; zero elsewhere, so that the sum over ranks is rank 0's
        step = torch.zeros_like(vector)
        if self.trainer.is_global_zero:
            # the curvature of a mean over tokens: each sample's gradient counts per token of an
            # average sample (1 for classifiers)
            scale = (count / retain_weight).sqrt()
            gradients = (scale * gradient for gradient in self.sample_gradients())
            step = self.solve(gradients, vector).to(vector)
        (step,) = self.sum_over_ranks([step])
        pieces = step.split([p.numel() for _, p in self.trainable()])
        return {
            name: p + self.alpha * piece.view_as(p)
            for (name, p), piece in zip(self.trainable(), pieces, strict=True)
        }

    def solve(self, gradients: Iterable[Tensor], vector: Tensor) -> Tensor:
        """`H⁻¹ v` from flat per-sample gradients `[P]`."""
        assert self.task is not None
        count = min(self.samples, len(self.task.split.parts["retain"]))
        if self.damping is None:
            return self._damped_step(gradients, count, vector)
        inverse = WoodFisher(count, self.damping)
        for gradient in gradients:
            inverse.update(gradient)
        return inverse.solve(vector)

    def _damped_step(self, gradients: Iterable[Tensor], count: int, vector: Tensor) -> Tensor:
        """`H⁻¹ v` with the smallest damping under which the retain samples keep their loss."""
        vector = vector.to(torch.promote_types(vector.dtype, torch.float32))
        rows = vector.new_empty(count, len(vector))
        for row, gradient in zip(rows, gradients, strict=True):
            row.copy_(gradient)
        limit = self.sample_loss() + self.loss_rise
        damping, step = smallest_damping(
            FisherSpectrum(rows),
            vector,
            lambda step: self.loss_after(self.alpha * step) <= limit,  # also false for NaN
        )
        rank_zero_info(f"Influence takes the damping {damping:.4g}.")
        return step
