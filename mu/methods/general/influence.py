"""Influence unlearning (IU): one Newton step from the full loss to the retain loss.

The Hessian is a Fisher matrix. Izzo, Smart, Chaudhuri and Zou, "Approximate Data Deletion from
Machine Learning Models", AISTATS 2021, arXiv 2002.10077; in the form of Jia et al., "Model Sparsity
Can Simplify Machine Unlearning", NeurIPS 2023, arXiv 2304.04934. The inverse is that of WoodFisher
(Singh and Alistarh, NeurIPS 2020, arXiv 2004.14340).

    θ_u = θ_o + α H⁻¹ v,    v = ∇ℓ(D) − ∇ℓ(D_r) = (N_f / N)(ḡ_f − ḡ_r)
    H = λ I + (1/n) Σ_i g_i g_iᵀ over n retain samples

The released code runs another recursion, which is not this inverse:
`mu.methods.compat.InfluenceReference`. Defaults: α = 1 (the Newton step; the authors tune it), λ =
0.01 (Koh and Liang, ICML 2017), n = 128 (ours: see `samples`). On the digits the effect grows with
α / λ, and 128 samples have the effect of all 450. Eval mode, no augmentation; batch-norm statistics
do not change.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from mu.backbones import Backbone
from mu.core.edit import Edit
from mu.core.gradients.per_sample import Choice, PerSample
from mu.core.gradients.summed import RunningSum, gradient_of
from mu.data.batch import Batch
from mu.data.loader import PlanLoader
from mu.data.plan import Forget, Phases, Retain
from mu.functional.curvature import WoodFisher
from mu.utils.errors import InputError

_FORGET = 0
_RETAIN = 1


class Influence(Edit):
    """A Newton step of gradients from all ranks; rank 0 builds the inverse and shares the step.

    Args:
        backbone: the original.
        alpha: step α; 1 is the Newton step.
        damping: λ > 0; smaller values move further where the samples have no curvature.
        samples: n, random retain samples for H (all of them where there are fewer). Rank 0 keeps n
            numbers for each trainable weight: 128 samples take 0.14 GB for ResNet-20 and 5.7 GB for
            ResNet-18 in float32.
        batch_size: samples whose gradients are computed at once, each of the size of the weights.
        per_sample: how per-sample gradients are computed, see `mu.core.gradients.per_sample`.
    """

    shard = "rows"

    def __init__(
        self,
        backbone: Backbone,
        alpha: float = 1.0,
        damping: float = 0.01,
        samples: int = 128,
        batch_size: int = 16,
        per_sample: Choice = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if samples < 1 or batch_size < 1 or not damping > 0:
            raise InputError(
                "influence needs samples and batch_size of at least 1 and a positive damping, "
                f"not {samples}, {batch_size} and {damping}."
            )
        self.alpha = alpha
        self.damping = damping
        self.samples = samples
        self.batch_size = batch_size
        self.per_sample: Choice = per_sample
        self.plan = Phases(Forget(shuffle=False), Retain(shuffle=False))
        self.curvature_plan = Retain(limit=samples)
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
            step = self.solve((scale * gradient for gradient in self.sample_gradients()), vector)
        (step,) = self.sum_over_ranks([step])
        pieces = step.split([p.numel() for _, p in self.trainable()])
        return {
            name: p + self.alpha * piece.view_as(p)
            for (name, p), piece in zip(self.trainable(), pieces, strict=True)
        }

    def solve(self, gradients: Iterable[Tensor], vector: Tensor) -> Tensor:
        """`H⁻¹ v` from flat per-sample gradients `[P]`."""
        assert self.task is not None
        inverse = WoodFisher(min(self.samples, len(self.task.split.parts["retain"])), self.damping)
        for gradient in gradients:
            inverse.update(gradient)
        return inverse.solve(vector)

    def sample_gradients(self) -> Iterator[Tensor]:
        """Flat gradients `[P]` of single retain samples, all of them on this rank."""
        if self.task is None:
            raise InputError(
                "influence reads single retain samples, so fit it with a mu task (datamodule=...)."
            )
        # a loader of its own, because the task's divides the samples among ranks
        loader = PlanLoader(
            self.task.parts(self.curvature_plan.reads()),
            self.curvature_plan,
            {"retain": self.batch_size},
            self.seed,
            augment=self.task.augmentation if self.augment else None,
        )
        loss = lambda part: self.backbone.loss(part)[0]  # noqa: E731
        per_sample = PerSample(self.backbone, self.trainable(), loss, self.per_sample)
        for batch in loader:
            part = self.prepare(self.trainer.strategy.batch_to_device(batch)["retain"])
            gradients = per_sample.gradients(part)
            yield from torch.cat([rows.flatten(1) for rows in gradients], dim=1)
