"""Influence unlearning as the released code computes it (`Wfisher.py` of Unlearn-Sparse and SalUn).

A recursion that never renews its direction with the new sample's own, so it is not the inverse of a
Fisher matrix (`mu.functional.curvature.woodfisher_reference`). It reads the first M + 2 retain
samples in their order, M = 1000 (300000 for ImageNet), with augmented loaders. α is the only tuned
number (1 to 20).
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from mu.backbones import Backbone
from mu.data.plan import Retain
from mu.functional.curvature import woodfisher_reference
from mu.methods.general.influence import Influence


class InfluenceReference(Influence):
    """`Influence` with the released recursion.

    Args:
        backbone: the original.
        alpha: step α.
        m: M.
    """

    augment = True

    def __init__(
        self, backbone: Backbone, alpha: float = 1.0, m: int = 1000, **kwargs: Any
    ) -> None:
        super().__init__(backbone, alpha=alpha, samples=m + 2, **kwargs)
        self.m = m
        self.curvature_plan = Retain(shuffle=False, limit=m + 2)

    def solve(self, gradients: Iterable[Tensor], vector: Tensor) -> Tensor:
        """The recursion's k, from flat per-sample gradients `[P]`; no gradient is kept."""
        return woodfisher_reference(gradients, vector, self.m)
