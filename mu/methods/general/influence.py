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

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from mu.backbones import Backbone
from mu.core.edit import Edit
from mu.core.gradients.per_sample import Choice, PerSample
from mu.core.gradients.summed import RunningSum, gradient_of
from mu.data.batch import Batch
from mu.data.loader import PlanLoader
from mu.data.plan import Forget, Phases, Retain
from mu.functional.curvature import FisherSpectrum, WoodFisher
from mu.utils.errors import InputError

_FORGET = 0
_RETAIN = 1
_DAMPING_FACTOR = 10**0.25
_DAMPING_TRIALS = 60  # fifteen powers of ten


class Influence(Edit):
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
        super().__init__(backbone, **kwargs)
        positive = (loss_rise, *([] if damping is None else [damping]))
        if samples < 1 or batch_size < 1 or not all(value > 0 for value in positive):
            raise InputError(
                "influence needs samples and batch_size of at least 1 and a positive damping and "
                f"loss_rise, not {samples}, {batch_size}, {damping} and {loss_rise}."
            )
        self.alpha = alpha
        self.damping = damping
        self.samples = samples
        self.batch_size = batch_size
        self.loss_rise = loss_rise
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
        count = min(self.samples, len(self.task.split.parts["retain"]))
        if self.damping is None:
            return self._damped_step(gradients, count, vector)
        inverse = WoodFisher(count, self.damping)
        for gradient in gradients:
            inverse.update(gradient)
        return inverse.solve(vector)

    def _damped_step(self, gradients: Iterable[Tensor], count: int, vector: Tensor) -> Tensor:
        """`H⁻¹ v` with the smallest damping under which the retain samples keep their loss."""
        vector = vector.float()
        rows = vector.new_empty(count, len(vector))
        for row, gradient in zip(rows, gradients, strict=True):
            row.copy_(gradient)
        spectrum = FisherSpectrum(rows)
        limit = self._sample_loss() + self.loss_rise
        damping = max(spectrum.largest, torch.finfo(torch.float32).tiny)
        step = spectrum.solve(vector, damping)
        # up to a damping that keeps the loss, where the largest eigenvalue does not; else down
        rises = not self._keeps_loss(step, limit)
        factor = _DAMPING_FACTOR if rises else 1 / _DAMPING_FACTOR
        for _ in range(_DAMPING_TRIALS):
            trial = spectrum.solve(vector, damping * factor)
            keeps = self._keeps_loss(trial, limit)
            if not rises and not keeps:
                break
            damping *= factor
            step = trial
            if rises and keeps:
                break
        rank_zero_info(f"Influence takes the damping {damping:.4g}.")
        return step

    @torch.no_grad()
    def _keeps_loss(self, step: Tensor, limit: float) -> bool:
        """Whether the retain samples' mean loss is at most `limit` after a step."""
        weights = [weight for _, weight in self.trainable()]
        before = [weight.detach().clone() for weight in weights]
        pieces = step.split([weight.numel() for weight in weights])
        for weight, piece in zip(weights, pieces, strict=True):
            weight.add_(self.alpha * piece.view_as(weight))
        loss = self._sample_loss()
        for weight, value in zip(weights, before, strict=True):
            weight.copy_(value)
        return loss <= limit  # also false for NaN

    @torch.no_grad()
    def _sample_loss(self) -> float:
        """Mean loss of the retain samples of the curvature."""
        sums = [self.backbone.loss(part) for part in self._sample_parts()]
        total = sum(float(values.sum()) for values, _ in sums)
        return total / sum(float(weight.sum()) for _, weight in sums)

    def sample_gradients(self) -> Iterator[Tensor]:
        """Flat gradients `[P]` of single retain samples, all of them on this rank."""
        loss = lambda part: self.backbone.loss(part)[0]  # noqa: E731
        per_sample = PerSample(self.backbone, self.trainable(), loss, self.per_sample)
        for part in self._sample_parts():
            gradients = per_sample.gradients(part)
            yield from torch.cat([rows.flatten(1) for rows in gradients], dim=1)

    def _sample_parts(self) -> Iterator[Batch]:
        """The retain samples of the curvature, prepared, all of them on this rank."""
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
        for batch in loader:
            batch = self.trainer.precision_plugin.convert_input(batch)
            yield self.prepare(self.trainer.strategy.batch_to_device(batch)["retain"])
