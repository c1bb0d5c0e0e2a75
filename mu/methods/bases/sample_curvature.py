"""Edits that read the curvature of single retain samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mu.backbones import Backbone
from mu.core.edit import Edit
from mu.core.gradients.per_sample import Choice, PerSample
from mu.data.batch import Batch
from mu.data.loader import PlanLoader
from mu.data.plan import Retain
from mu.utils.errors import InputError


class SampleCurvatureEdit(Edit):
    """Base of edits that need gradients and losses of single retain samples, on one rank.

    Args:
        backbone: the original.
        samples: number of random retain samples.
        batch_size: samples whose gradients are computed at once, each of the size of the weights.
        per_sample: how per-sample gradients are computed, see `mu.core.gradients.per_sample`.

    Attributes:
        curvature_plan: order in which the samples are read.
    """

    def __init__(
        self,
        backbone: Backbone,
        samples: int,
        batch_size: int,
        per_sample: Choice = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.samples = samples
        self.batch_size = batch_size
        self.per_sample: Choice = per_sample
        self.curvature_plan = Retain(limit=samples)

    def configure_model(self) -> None:
        """Refuse sharded weights, of which no rank alone can compute a gradient."""
        if self.device_mesh is not None:
            raise InputError(
                f"{type(self).__name__} computes gradients of single samples on one rank, which "
                "sharded weights do not allow; take the strategy ddp."
            )
        super().configure_model()

    def sample_gradients(self) -> Iterator[Tensor]:
        """Flat gradients `[P]` of single retain samples, all of them on this rank."""
        loss = lambda part: self.backbone.loss(part)[0]  # noqa: E731
        per_sample = PerSample(self.backbone, self.trainable(), loss, self.per_sample)
        for part in self.sample_parts():
            gradients = per_sample.gradients(part)
            yield from torch.cat([rows.flatten(1) for rows in gradients], dim=1)

    @torch.no_grad()
    def sample_loss(self) -> float:
        """Mean loss of the retain samples."""
        sums = [self.backbone.loss(part) for part in self.sample_parts()]
        total = sum(float(values.sum()) for values, _ in sums)
        return total / sum(float(weight.sum()) for _, weight in sums)

    @torch.no_grad()
    def loss_after(self, step: Tensor) -> float:
        """Mean loss of the retain samples after a flat step `[P]`, which is taken back."""
        weights = [weight for _, weight in self.trainable()]
        before = [weight.detach().clone() for weight in weights]
        pieces = step.split([weight.numel() for weight in weights])
        for weight, piece in zip(weights, pieces, strict=True):
            weight.add_(piece.view_as(weight))
        loss = self.sample_loss()
        for weight, value in zip(weights, before, strict=True):
            weight.copy_(value)
        return loss

    def sample_parts(self) -> Iterator[Batch]:
        """The retain samples, prepared, all of them on this rank."""
        if self.task is None:
            raise InputError(
                f"{type(self).__name__} reads single retain samples, so fit it with a mu task "
                "(datamodule=...)."
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
