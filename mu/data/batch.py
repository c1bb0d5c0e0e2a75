"""Batches as dicts of tensors: fetching, concatenation, conversion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, default_convert

Batch = dict[str, Any]
"""Tensors `[B, ...]`, lists of B strings and scalars by name; `index` are the samples' indices."""
Augment = Callable[[Batch, int], Batch]
"""Augmentation of a batch; its draws are keyed by the seed, the samples' indices and visits."""


def fetch(dataset: Dataset, positions: np.ndarray) -> Batch:
    """A batch of a dataset, by its vectorised `__getitems__` where it has one."""
    get_items = getattr(dataset, "__getitems__", None)
    if get_items is None:
        return default_collate([dataset[int(i)] for i in positions])
    rows = get_items(positions.tolist())
    return dict(rows) if isinstance(rows, Mapping) else default_collate(rows)


def map_batch(batch: Any, fn: Callable[[Any], Any]) -> Any:
    """Apply a function to all values of a batch except lists of strings.

    torch and Lightning would go through such a list prompt by prompt.

    Example:
        >>> map_batch({"x": 2, "nested": {"y": 3}, "prompt": ["a cat"]}, lambda value: -value)
        {'x': -2, 'nested': {'y': -3}, 'prompt': ['a cat']}
    """
    if isinstance(batch, dict):
        return {name: map_batch(value, fn) for name, value in batch.items()}
    return batch if isinstance(batch, list) and batch and isinstance(batch[0], str) else fn(batch)


def to_tensors(batch: Any) -> Any:
    """Convert a batch's numpy arrays to tensors."""
    return map_batch(batch, default_convert)


class ConcatByIndex(Dataset):
    """Several parts as one dataset, ordered by index, whatever part a sample belongs to.

    Args:
        parts: datasets with `indices` (stable index of each position).
    """

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts
        owner = np.concatenate([np.full(len(part), row) for row, part in enumerate(parts)])
        positions = np.concatenate([np.arange(len(part)) for part in parts])
        indices = np.concatenate([np.asarray(part.indices) for part in parts])
        order = np.argsort(indices)
        self.owner = owner[order]
        self.positions = positions[order]
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
        return self.parts[self.owner[position]][int(self.positions[position])]

    def __getitems__(self, positions: list[int]) -> Batch:
        rows = np.asarray(positions)
        owners = self.owner[rows]
        # positions within the batch, by part
        by_part = [np.flatnonzero(owners == row) for row in range(len(self.parts))]
        batches = [
            fetch(part, self.positions[rows[selected]])
            for part, selected in zip(self.parts, by_part, strict=True)
            if len(selected)
        ]
        # back to the order that was asked for
        order = torch.as_tensor(np.argsort(np.concatenate(by_part)))
        return {name: _reordered(value, order) for name, value in concatenate(*batches).items()}


def _reordered(value: Any, order: Tensor) -> Any:
    if isinstance(value, list):
        return [value[int(position)] for position in order]
    return value[order] if isinstance(value, Tensor) and value.dim() else value


def concatenate(*parts: Mapping[str, Any] | None) -> Batch:
    """Concatenate batch parts along the batch dimension.

    Sequences of unequal lengths are padded on the right, labels with −100 and anything else with 0.
    Only entries that all parts have stay; a `padded` mark is filled in where one part has it.
    `count` and `total` are added up, but for the parts of a union (`joint`), where each part has
    the union's.

    Args:
        parts: batches; those that are None are left out.

    Example:
        >>> first = {"index": torch.tensor([4]), "input_ids": torch.tensor([[7, 8]])}
        >>> second = {"index": torch.tensor([9]), "input_ids": torch.tensor([[5]])}
        >>> concatenate(first, None, second)["input_ids"]
        tensor([[7, 8],
                [5, 0]])
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
    """Tensors concatenated along the batch dimension, sequences padded to the longest."""
    if values[0].dim() == 2 and len({value.shape[1] for value in values}) > 1:
        width = max(value.shape[1] for value in values)
        fill = -100 if name == "labels" else 0
        values = [
            torch.nn.functional.pad(value, (0, width - value.shape[1]), value=fill)
            for value in values
        ]
    return torch.cat(values)
