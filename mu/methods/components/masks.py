"""Weight masks: gradient saliency and parameter names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from mu.core.masks import WeightMask
from mu.core.protocols import Method
from mu.utils.errors import InputError


class Saliency(WeightMask):
    """Mask by gradient saliency: the weights with the largest |Σ_b ∇ℓ_b(D_f)| may move.

    Fan et al., ICLR 2024, arXiv 2310.12508 (SalUn). The signed gradients of the batches' mean
    losses are summed before the absolute value is taken; the threshold is global over all n
    trainable weights, of which exactly ⌊keep · n⌋ may move.

    Args:
        keep: share of the weights that may move; larger trains more (the reference code's
            `with_0.5` is `keep=0.5`).
        batch_size: batch size of the pass; the task's when None.
        augment: whether the pass augments (the reference code does).
        enforce: see WeightMask.
        clip: see WeightMask.
    """

    def __init__(
        self,
        keep: float = 0.5,
        batch_size: int | None = None,
        augment: bool = True,
        enforce: Literal["hard", "gradient"] = "hard",
        clip: Literal["mask_then_clip", "clip_then_mask"] = "mask_then_clip",
    ) -> None:
        super().__init__(enforce, clip)
        if not 0 < keep <= 1:
            raise InputError(f"keep is {keep}; the share of weights that may move lies in (0, 1].")
        self.keep = keep
        self.batch_size = batch_size
        self.augment = augment

    def choose(self, module: Method) -> dict[str, Tensor]:
        """Mask of the globally largest saliencies, in eval mode at the original weights."""
        from mu.core.gradients.summed import summed_gradient
        from mu.data.plan import Forget
        from mu.functional.selection import global_top_mask

        iterate_batches = module.iterate_batches(
            Forget(), augment=self.augment, batch_size=self.batch_size
        )
        gradient = summed_gradient(module, iterate_batches, "forget")
        return global_top_mask({name: value.abs() for name, value in gradient.items()}, self.keep)


class ByName(WeightMask):
    """Mask by parameter name: weights whose name contains one of `words` may move (`attn2`).

    Args:
        words: parts of parameter names.
        enforce: see WeightMask.
        clip: see WeightMask.
    """

    def __init__(
        self,
        words: list[str],
        enforce: Literal["hard", "gradient"] = "hard",
        clip: Literal["mask_then_clip", "clip_then_mask"] = "mask_then_clip",
    ) -> None:
        super().__init__(enforce, clip)
        self.words = list(words)

    def choose(self, module: Method) -> dict[str, Tensor]:
        """All true or all false for each parameter."""
        picked: Callable[[str], bool] = lambda name: any(word in name for word in self.words)  # noqa: E731
        if not any(picked(name) for name in self.names):
            raise InputError(
                f"no trainable weight has {' or '.join(map(repr, self.words))} in its name; names "
                f"are like {self.names[0]!r}."
            )
        return {
            name: torch.full_like(p, picked(name), dtype=torch.bool)
            for name, p in module.trainable()
        }
