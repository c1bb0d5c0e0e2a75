"""Batch-norm statistics of a fit: moved, frozen, or taken anew at its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from mu.backbones import Backbone
from mu.data.plan import DataPlan, Retain

Norm = Literal["train", "eval", "recalibrate"]
_NORMS = (nn.modules.batchnorm._BatchNorm,)


class NormStatistics(LightningModule):
    """What `norm` means, for `UnlearningModule`."""

    backbone: Backbone
    norm: Norm
    world_size: int

    def iterate_batches(
        self, plan: DataPlan, *, augment: bool, batch_size: int | None = None, shard: str = "rows"
    ) -> Iterator[dict[str, Any]]:
        """Prepared batches of one epoch of `plan` on this rank."""
        raise TypeError(f"{type(self).__name__} does not say how it goes over the data.")

    def sum_over_ranks(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Each tensor, added up over ranks."""
        raise TypeError(f"{type(self).__name__} does not say how ranks add up.")

    def set_mode(self) -> None:
        """Train mode for the backbone, with frozen statistics where `norm` says so; eval for the
        reference.
        """
        self.backbone.train()
        if self.norm == "eval":
            for layer in self.backbone.modules():
                if isinstance(layer, _NORMS):
                    layer.eval()

    @torch.no_grad()
    def _share_statistics(self) -> None:
        """Rank 0's buffers on all ranks. DDP does so before each forward pass, so after a last step
        every rank would serve its own.
        """
        if self.world_size > 1:
            for name, buffer in self.named_buffers():
                if not name.startswith(("reference.", "mask.")):
                    whole = buffer.contiguous()
                    torch.distributed.broadcast(whole, 0)
                    buffer.copy_(whole)

    def on_validation_start(self) -> None:
        """Validation within an epoch sees one model too."""
        self._share_statistics()

    @torch.no_grad()
    def recalibrate(self) -> None:
        """Batch-norm statistics anew, as the plain mean over one pass of the retain part, without
        augmentation.
        """
        layers = [
            layer
            for layer in self.backbone.modules()
            if isinstance(layer, _NORMS) and layer.track_running_stats
        ]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a cumulative mean
            layer.train()
        for batch in self.iterate_batches(Retain(), augment=False):
            self.backbone.predict(batch["retain"])
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            for name in ("running_mean", "running_var"):
                buffer = getattr(layer, name)
                buffer.copy_(self.sum_over_ranks([buffer])[0] / self.world_size)

    @contextmanager
    def frozen_statistics(self) -> Iterator[None]:
        """Eval mode for a pass that gathers statistics; the mode before it is restored."""
        modes = [(layer, layer.training) for layer in self.backbone.modules()]
        self.backbone.eval()
        try:
            yield
        finally:
            for layer, training in modes:
                layer.training = training
