"""Mask of the largest weights."""

from typing import Any

from torch import Tensor

from mu.core import WeightMask
from mu.core.protocols import Method
from mu.functional import global_top_mask


class LargestWeights(WeightMask):
    """The weights of largest magnitude may move.

    Args:
        keep: share of the weights that may move, in (0, 1].
    """

    def __init__(self, keep: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep = keep

    def choose(self, module: Method) -> dict[str, Tensor]:
        """One boolean for each trainable weight."""
        return global_top_mask(
            {name: w.detach().abs() for name, w in module.trainable()}, self.keep
        )
