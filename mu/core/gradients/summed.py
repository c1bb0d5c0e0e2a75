"""Gradients and squared gradients of a pass over data, added up over ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mu.utils.modules import eval_mode

if TYPE_CHECKING:
    from mu.core.protocols import Method


def gradient_of(module: Method, loss: Tensor) -> list[Tensor]:
    """Gradient of a scalar by the trainable weights, without touching `.grad` or DDP's reducer;
    zero where a weight plays no part.
    """
    parameters = [p for _, p in module.trainable()]
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


def summed_gradient(
    module: Method, iterate_batches: Iterable[dict[str, Any]], part: str
) -> dict[str, Tensor]:
    """Σ_b ∇ (mean loss of batch b), signed, over all batches and ranks, in eval mode.

    Args:
        module: its trainable weights are differentiated at their present values.
        passes: batches with the part `part` (see `UnlearningModule.iterate_batches`).
        part: which part's loss.

    Returns:
        Gradient by parameter name.
    """
    total: list[Tensor] | None = None
    with eval_mode(module.backbone), torch.enable_grad(), module.precision():
        for batch in iterate_batches:
            loss = module.reduce(module.backbone.loss(batch[part]), batch[part]) / module.world_size
            gradient = gradient_of(module, loss)
            if total is None:
                total = gradient
            else:
                torch._foreach_add_(total, gradient)
    assert total is not None, "a pass shows at least one batch"
    return dict(
        zip([name for name, _ in module.trainable()], module.sum_over_ranks(total), strict=True)
    )
