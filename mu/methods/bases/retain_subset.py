"""A data plan over a fixed random subset of the retain part."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mu.data.plan import DataPlan, Rows, Sizes, Step, Stream


@dataclass(frozen=True)
class RetainSubset(DataPlan):
    """The same `count` random retain samples in each epoch, in another order.

    Args:
        count: samples of the subset; all of retain where it is smaller.
    """

    count: int

    def reads(self) -> frozenset[str]:
        """Retain only."""
        return frozenset({"retain"})

    def steps(self, epoch: int, sizes: Sizes, batch: Sizes, seed: int) -> Iterator[Step]:
        """See `DataPlan`."""
        size = min(self.count, sizes["retain"])
        subset = Stream("unsir-subset", sizes["retain"], seed).take(0, size).positions
        order = Stream("unsir-order", size, seed).take(epoch * size, size).positions
        for start in range(0, size, batch["retain"]):
            positions = subset[order[start : start + batch["retain"]]]
            yield Step({"retain": Rows(positions, np.full(len(positions), epoch))})
