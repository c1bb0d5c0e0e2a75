"""Outputs: the per-example values of a test, kept once for all suites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torchmetrics import Metric


class Outputs(Metric):
    """Per-example values by split and field; `compute` returns each sample once, sorted by index, from all ranks.

    Splits and fields are not known beforehand, so the states are added when they first occur; before ranks are synchronised, each adds
    the states that only others have, as empty ones.
    """

    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._fields: dict[str, tuple[str, str]] = {}

    def update(self, split: str, values: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            split: name of the split.
            values: `index` `[B]` int64 and other fields `[B, ...]`; rows marked in `padded` `[B]` bool are left out.
        """
        real = ~values["padded"] if "padded" in values else slice(None)
        for name, value in values.items():
            if name != "padded":
                getattr(self, self._state(split, name)).append(value.detach()[real])

    def _state(self, split: str, name: str) -> str:
        key = f"rows_{split}_{name}".replace("/", "_")
        if key not in self._fields:
            self._fields[key] = (split, name)
            self.add_state(key, default=[], dist_reduce_fx="cat")
        return key

    def compute(self) -> dict[str, dict[str, Tensor]]:
        """`{split: {field: [N, ...]}}`."""
        found: dict[str, dict[str, Tensor]] = {}
        for key, (split, name) in self._fields.items():
            rows = getattr(self, key)
            found.setdefault(split, {})[name] = torch.cat(rows) if isinstance(rows, list) else rows
        return {split: _once(values) for split, values in found.items()}


def _once(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    index, order = torch.sort(values["index"], stable=True)
    first = torch.ones_like(index, dtype=torch.bool)
    first[1:] = index[1:] != index[:-1]
    return {name: value[order][first] for name, value in values.items()}
