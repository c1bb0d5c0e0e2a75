"""Batches: dicts of tensors, fetched, concatenated, moved and reordered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, default_convert

Batch = dict[str, Any]
Augment = Callable[[Batch, int], Batch]


def fetch(dataset: Dataset, positions: np.ndarray) -> Batch:
    """A batch of a dataset, by its vectorised `__getitems__` where it has one."""
    many = getattr(dataset, "__getitems__", None)
    if many is None:
        return default_collate([dataset[int(i)] for i in positions])
    rows = many(positions.tolist())
    return dict(rows) if isinstance(rows, Mapping) else default_collate(rows)


def each_tensor(batch: Any, work: Callable[[Any], Any]) -> Any:
    """`work` on all that a batch holds except lists of strings, which torch and Lightning would go
    through prompt by prompt.
    """
    if isinstance(batch, dict):
        return {name: each_tensor(value, work) for name, value in batch.items()}
    return batch if isinstance(batch, list) and batch and isinstance(batch[0], str) else work(batch)


def converted(batch: Any) -> Any:
    """Arrays as tensors."""
    return each_tensor(batch, default_convert)


class ConcatByIndex(Dataset):
    """Several parts as one dataset, ordered by index, so that it does not show where one part ends.

    Args:
        parts: datasets with `indices` (stable index of each position).
    """

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts
        owner = np.concatenate([np.full(len(part), number) for number, part in enumerate(parts)])
        place = np.concatenate([np.arange(len(part)) for part in parts])
        indices = np.concatenate([np.asarray(part.indices) for part in parts])
        order = np.argsort(indices)
        self.owner = owner[order]
        self.place = place[order]
        self.indices = indices[order]
        if any(getattr(part, "weights", None) is not None for part in parts):
            weights = [
                np.ones(len(p)) if getattr(p, "weights", None) is None else np.asarray(p.weights)
                for p in parts
            ]
            self.weights = np.concatenate(weights)[order]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Any:
        return self.parts[self.owner[position]][int(self.place[position])]

    def __getitems__(self, positions: list[int]) -> Batch:
        rows = np.asarray(positions)
        owners = self.owner[rows]
        found = [np.flatnonzero(owners == number) for number in range(len(self.parts))]
        fetched = [
            fetch(part, self.place[rows[where]])
            for part, where in zip(self.parts, found, strict=True)
            if len(where)
        ]
        back = torch.as_tensor(np.argsort(np.concatenate(found)))
        joined = concatenate(*fetched)
        return {name: _reordered(value, back) for name, value in joined.items()}


def _reordered(value: Any, order: Tensor) -> Any:
    if isinstance(value, list):
        return [value[int(place)] for place in order]
    return value[order] if isinstance(value, Tensor) and value.dim() else value


def concatenate(*parts: Mapping[str, Any] | None) -> Batch:
    """One batch from several parts that are shown together: tensors are joined along the first
    dimension, lists one after the other.

    Sequences of unequal lengths are padded on the right, labels with −100 and anything else with 0.
    Only entries that every part has are kept; a `padded` mark is filled in where one part has it.
    Totals are added up, but for the parts of a union (`joint`), which carry the union's own.
    """
    present = [dict(part) for part in parts if part is not None]
    if len(present) == 1:
        return present[0]
    if any("padded" in part for part in present):
        for part in present:
            part.setdefault(
                "padded",
                torch.zeros(len(part["index"]), dtype=torch.bool, device=part["index"].device),
            )
    joined: Batch = {}
    for name in present[0]:
        values = [part.get(name) for part in present]
        if all(isinstance(value, Tensor) and value.dim() > 0 for value in values):
            joined[name] = _stacked(name, values)  # type: ignore[arg-type]
        elif all(isinstance(value, list) for value in values):
            joined[name] = [item for value in values for item in value]  # type: ignore[union-attr]
        elif all(isinstance(value, Mapping) for value in values):
            joined[name] = concatenate(*values)  # type: ignore[arg-type]
        elif name in ("count", "total") and all(value is not None for value in values):
            joined[name] = (
                values[0]
                if all(part.get("joint") for part in present)
                else torch.stack(values).sum()  # type: ignore[arg-type]
            )
    return joined


def _stacked(name: str, values: list[Tensor]) -> Tensor:
    """Tensors one below the other, sequences padded to the longest."""
    if values[0].dim() == 2 and len({value.shape[1] for value in values}) > 1:
        width = max(value.shape[1] for value in values)
        fill = -100 if name == "labels" else 0
        values = [
            torch.nn.functional.pad(value, (0, width - value.shape[1]), value=fill)
            for value in values
        ]
    return torch.cat(values)
