"""Batch-norm statistics in a fit: updated, frozen, or recomputed at its end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.distributed
from torch import Tensor, nn

from mu.core.protocols import Method
from mu.data.plan import Retain
from mu.utils.sharded import is_sharded

Norm = Literal["train", "eval", "recalibrate"]
"""`train` updates running statistics from every batch, `eval` freezes them, `recalibrate` updates
them and finally recomputes them from the retain part."""
_NORMS = (nn.modules.batchnorm._BatchNorm,)


def set_mode(model: nn.Module, norm: Norm) -> None:
    """Train mode for a model, with its batch-norm layers in eval mode where `norm` is `eval`."""
    model.train()
    if norm == "eval":
        for layer in model.modules():
            if isinstance(layer, _NORMS):
                layer.eval()


@torch.no_grad()
def broadcast_buffers(named_buffers: Iterable[tuple[str, Tensor]]) -> None:
    """Broadcast rank 0's buffers to all ranks, in place.

    Buffers of the reference and of the mask are left out, and sharded ones, of which each rank has
    its own part. DDP broadcasts before each forward pass, so that without this, ranks would serve
    different statistics after the last step.
    """
    for name, buffer in named_buffers:
        if not name.startswith(("reference.", "mask.")) and not is_sharded(buffer):
            contiguous = buffer.contiguous()
            torch.distributed.broadcast(contiguous, 0)
            buffer.copy_(contiguous)


@torch.no_grad()
def recalibrate(method: Method) -> None:
    """Recompute batch-norm statistics as the mean over one pass of the retain part.

    The pass does not augment.
    """
    layers = [
        layer
        for layer in method.backbone.modules()
        if isinstance(layer, _NORMS) and layer.track_running_stats
    ]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean
        layer.train()
    for batch in method.iterate_batches(Retain(), augment=False):
        method.backbone.predict(batch["retain"])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        for name in ("running_mean", "running_var"):
            buffer = getattr(layer, name)
            buffer.copy_(method.sum_over_ranks([buffer])[0] / method.world_size)
