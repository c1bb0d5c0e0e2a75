"""Per-example outputs of a test, gathered once for all suites and over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torchmetrics import Metric

from mu.utils.errors import InputError
from mu.utils.rng import stream_id

Table = dict[str, Tensor]
"""Values by field name, rows in the same order; `index` is always among the fields."""

_Shape = tuple[tuple[int, ...], torch.dtype]


class Outputs(Metric):
    """Per-example values by split and field, without repeated samples, sorted by index.

    Every rank gets the same tables. Neither splits nor fields are declared beforehand. Each field
    has two list states, reduced by concatenation: its values and, beside them, (split, index) of
    every row. A rank that saw no sample of a split, or no value of a field, lacks the states that
    others have, and torchmetrics would gather mismatched tensors; so before synchronising, the
    ranks exchange the names of their splits and fields, and add the missing states as empty tensors
    of the right shape and type.

    As input to `update` the metric accepts:

    - `split`: name of the split;
    - `values`: `index` `[B]` int64; optionally `padded` `[B]` bool, True for rows to be ignored;
      and any fields `[B, ...]` (`logits`
      `[B, K]`, `label` `[B]`, `nll` `[B]`, ...), always of the same shape and type for the same
      name.

    As output, `compute` returns `{split: {field: [N, ...]}}`; `index` is among the fields. Of rows
    with the same index the first one counts, ranks in order. Fields keep their type and device.

    Raises:
        InputError: in `update`, when `index` is missing, lengths differ, or a field changes its
            shape or type; in `compute`, when fields of a split do not cover the same samples.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._splits: dict[int, str] = {}
        self._fields: dict[str, _Shape] = {}

    def update(self, split: str, values: Mapping[str, Tensor]) -> None:
        """Add a batch of one split."""
        index = values.get("index")
        if index is None or index.ndim != 1 or index.is_floating_point():
            raise InputError(
                f"the outputs of split {split} need an `index` [B] of integers, the samples' "
                "stable numbers."
            )
        # name each row by its split and index, without padded rows
        padded = values.get("padded")
        real = (
            torch.ones_like(index, dtype=torch.bool) if padded is None else ~padded.to(torch.bool)
        )
        code = stream_id("split", split)  # the same number on every rank
        rows = torch.stack(
            [torch.full_like(index, code, dtype=torch.int64), index.to(torch.int64)], dim=1
        )[real]
        # append the values
        self._splits[code] = split
        for name, value in values.items():
            if name == "padded":
                continue
            if value.ndim == 0 or len(value) != len(index):
                raise InputError(
                    f"{name} of split {split} has shape {tuple(value.shape)}, but there are "
                    f"{len(index)} indices."
                )
            self._declare(name, (tuple(value.shape[1:]), value.dtype))
            getattr(self, f"value_{name}").append(value.detach()[real])
            getattr(self, f"row_{name}").append(rows)

    def compute(self) -> dict[str, Table]:
        """Tables by split."""
        tables: dict[str, Table] = {}
        for name in sorted(self._fields):
            rows = _joined(getattr(self, f"row_{name}"))
            values = _joined(getattr(self, f"value_{name}"))
            for code in rows[:, 0].unique().tolist() if len(rows) else []:
                inside = rows[:, 0] == code
                index, order = _distinct(rows[inside, 1])
                table = tables.setdefault(self._splits[code], {"index": index})
                if not torch.equal(table["index"], index):
                    raise InputError(
                        f"{name} of split {self._splits[code]} was given for {len(index)} "
                        f"samples, but other fields for {len(table['index'])}; every batch of a "
                        "split needs the same fields."
                    )
                if name != "index":
                    table[name] = values[inside][order]
        return {split: tables[split] for split in sorted(tables)}

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any = None,
        should_sync: bool = True,
        distributed_available: Callable[[], bool] | None = None,
    ) -> None:
        """Gather all ranks' rows, after the ranks have agreed on the states."""
        available = distributed_available or self.distributed_available_fn
        if should_sync and not self._is_synced and callable(available) and available():
            self._agree(process_group or self.process_group)
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def _agree(self, group: Any) -> None:
        declared: list[Any] = [None] * torch.distributed.get_world_size(group)
        torch.distributed.all_gather_object(declared, (self._splits, self._fields), group=group)
        for splits, fields in declared:
            self._splits.update(splits)
            for name, shape in fields.items():
                self._declare(name, shape)
        for name, (shape, dtype) in self._fields.items():
            if len(getattr(self, f"value_{name}")) == 0:
                setattr(
                    self,
                    f"value_{name}",
                    [torch.empty((0, *shape), dtype=dtype, device=self.device)],
                )
                setattr(
                    self,
                    f"row_{name}",
                    [torch.empty((0, 2), dtype=torch.int64, device=self.device)],
                )
        # states are gathered in the order of this dict, which is the order in which each rank met
        # the fields
        self._reductions = dict(sorted(self._reductions.items()))

    def _declare(self, name: str, shape: _Shape) -> None:
        if name not in self._fields:
            self._fields[name] = shape
            self.add_state(f"value_{name}", default=[], dist_reduce_fx="cat")
            self.add_state(f"row_{name}", default=[], dist_reduce_fx="cat")
        elif self._fields[name] != shape:
            raise InputError(
                f"{name} has shape {['B', *shape[0]]} and type {shape[1]}, but had "
                f"{['B', *self._fields[name][0]]} and {self._fields[name][1]} before; a field "
                "keeps both over all splits."
            )

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """`compute` whose fields keep their rows where torchmetrics makes one element a scalar."""
        wrapped = super()._wrap_compute(compute)

        def tables(*args: Any, **kwargs: Any) -> dict[str, Table]:
            return {
                split: {
                    name: value.reshape(-1, *self._fields[name][0]) for name, value in table.items()
                }
                for split, table in wrapped(*args, **kwargs).items()
            }

        return tables


def _joined(chunks: Tensor | list[Tensor]) -> Tensor:
    """Concatenated state, a list before and a tensor after synchronisation; empty after a reset."""
    if isinstance(chunks, Tensor):
        return chunks
    return torch.cat(chunks) if chunks else torch.empty(0)


def _distinct(index: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted distinct indices, and the positions of their first occurrences."""
    ordered, order = torch.sort(index, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first], order[first]
