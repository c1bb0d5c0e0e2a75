"""Means of an epoch's loss terms, which callbacks can monitor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class EpochMeans:
    """Running sums of loss terms over the batches of an epoch.

    Example:
        >>> import torch
        >>> means = EpochMeans()
        >>> for loss in (1.0, 3.0):
        ...     means.start_batch()
        ...     means.add({"forget": torch.tensor(loss), "retain": torch.tensor(1.0)})
        >>> {name: value.item() for name, value in means.values().items()}
        {'train/forget': 2.0, 'train/retain': 1.0, 'train/loss': 3.0}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._batches = 0

    def clear(self) -> None:
        """Begin a new epoch."""
        self._sums = {}
        self._counts = {}
        self._batches = 0

    def state(self) -> dict[str, Any]:
        """Sums for a checkpoint inside an epoch; empty where there are none."""
        if not self._sums:
            return {}
        return {"sums": self._sums, "counts": self._counts, "batches": self._batches}

    def load(self, state: Mapping[str, Any]) -> None:
        """Load the `state` of a checkpoint."""
        self._sums = dict(state.get("sums", {}))
        self._counts = dict(state.get("counts", {}))
        self._batches = state.get("batches", 0)

    def start_batch(self) -> None:
        """Count a batch, which may add terms more than once (a step of each of two models)."""
        self._batches += 1

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add the terms of one loss."""
        for name, value in terms.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def values(self) -> dict[str, Tensor]:
        """Mean of each term over the batches that have it, and of their sum over all batches."""
        if not self._sums:
            return {}
        means = {f"train/{name}": sum_ / self._counts[name] for name, sum_ in self._sums.items()}
        total = sum(self._sums.values()) / max(1, self._batches)
        return {**means, "train/loss": total} if "loss" not in self._sums else means  # type: ignore[dict-item]
