"""Weight masks: booleans that say which weights may move, and their enforcement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from mu.core.protocols import Method
from mu.utils.errors import InputError, MissingMethodError
from mu.utils.modules import buffer_like, register_like
from mu.utils.sharded import count_true, distribute_like, local_part
from mu.utils.spec import Reconstructible


class WeightMask(nn.Module, Reconstructible):
    """Base of weight masks: one boolean for each trainable weight; True may move.

    A subclass overrides `choose`. The mask is computed once, before the first step, is part of the
    checkpoint, and is not computed again on resume. Gradients are masked before the optimizer's
    step, and masked-out weights are put back after it, because weight decay and momentum move
    weights whose gradient is zero. Of weights that are sharded over ranks (FSDP2), each rank holds
    the same shard of the mask.

    Args:
        enforce: `hard` masks the gradient and restores masked-out weights; `gradient` only masks
            the gradient (the SalUn code before February 2026, with which the published numbers were
            made: about 11 % decay of the masked-out weights in its setting).
        clip: `mask_then_clip` takes the gradient's norm after masking, `clip_then_mask` before.
    """

    def __init__(
        self,
        enforce: Literal["hard", "gradient"] = "hard",
        clip: Literal["mask_then_clip", "clip_then_mask"] = "mask_then_clip",
    ) -> None:
        super().__init__()
        self.enforce = enforce
        self.clip = clip
        self.register_buffer("chosen", torch.tensor(False))
        self.names: list[str] = []
        self._parameters_: list[nn.Parameter] = []
        self._frozen: list[Tensor] | None = None
        self._floats: list[Tensor] | None = None

    def choose(self, module: Method) -> dict[str, Tensor]:
        """Boolean tensors by parameter name, equal on all ranks.

        Called once, on every rank, before the first step. Of a weight that is sharded over ranks,
        the mask is a DTensor of the weight's layout, or the whole mask.
        """
        raise MissingMethodError(f"{type(self).__name__} does not override choose().")

    def allocate(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Register the mask's buffers, so that a checkpoint can be loaded into them."""
        pairs = list(named)
        self.names = [name for name, _ in pairs]
        self._parameters_ = [parameter for _, parameter in pairs]
        register_like(self, "of_", pairs, lambda weight: torch.ones_like(weight, dtype=torch.bool))

    def start(self, module: Method) -> None:
        """Compute the mask unless a checkpoint brought one, and copy the masked-out weights."""
        if not bool(self.chosen):
            masks = self.choose(module)
            missing = [name for name in self.names if name not in masks]
            if missing:
                raise InputError(
                    f"{type(self).__name__} chose nothing for {missing[0]!r}; a mask covers every "
                    "trainable weight."
                )
            for name in self.names:
                mask = self.mask_for(name)
                mask.copy_(distribute_like(masks[name], mask))
            if self._movable() == 0:
                raise InputError(f"{type(self).__name__} lets no weight move; keep more weights.")
            self.chosen.fill_(True)  # type: ignore[operator]
        weights = [local_part(p.detach()) for p in self._parameters_]
        masks = [local_part(self.mask_for(name)) for name in self.names]
        self._floats = [mask.to(p.dtype) for mask, p in zip(masks, weights, strict=True)]
        self._frozen = None
        if self.enforce == "hard":
            self._frozen = [torch.where(mask, 0, p) for mask, p in zip(masks, weights, strict=True)]

    def mask_for(self, name: str) -> Tensor:
        """The mask of one parameter."""
        return buffer_like(self, "of_", name)

    def mask_gradients(self) -> None:
        """Zero the gradients of masked-out weights."""
        assert self._floats is not None, "start() comes first"
        pairs = [
            (local_part(p.grad), m)
            for p, m in zip(self._parameters_, self._floats, strict=True)
            if p.grad is not None
        ]
        if pairs:
            torch._foreach_mul_([g for g, _ in pairs], [m for _, m in pairs])

    @torch.no_grad()
    def restore(self) -> None:
        """Set masked-out weights back to their values at the start of the fit."""
        if self._frozen is not None and self._floats is not None:
            weights = [local_part(p) for p in self._parameters_]
            torch._foreach_mul_(weights, self._floats)
            torch._foreach_add_(weights, self._frozen)

    def share(self) -> float:
        """Share of the weights that may move, in [0, 1]."""
        return self._movable() / max(1, sum(self.mask_for(name).numel() for name in self.names))

    def _movable(self) -> int:
        """Number of weights that may move, over all shards."""
        return count_true(self.mask_for(name) for name in self.names)

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Restore after every step of `optimizer`, in automatic and in manual optimisation."""
        optimizer.register_step_post_hook(lambda *_: self.restore())
