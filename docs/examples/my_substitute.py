"""Substitute labels for forget samples: a random one of the classes that are named."""

from typing import Any

import torch
from torch import Tensor

from mu.core import Substitute
from mu.utils import rng


class OneOf(Substitute):
    """A label drawn from a list, anew on every visit.

    Args:
        labels: the classes to draw from.
    """

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels

    def draw(self, part: dict[str, Any], seed: int) -> Tensor:
        """`[B]` int64, a function of (seed, index, visit) alone."""
        picked = rng.integers(seed, part["index"], part["visit"], "one-of", len(self.labels))
        return torch.tensor(self.labels, device=picked.device)[picked]
