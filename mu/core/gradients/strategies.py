"""Strategies for per-sample gradients that work on any network: a loop, and torch.func's vmap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mu.data.batch import Batch
from mu.utils.errors import InputError

Values = Callable[[Batch], Tensor]
"""From a batch to `[B]`, or `[B, S]` for S values of each sample.

A sample's values depend on that sample only.
"""


class Strategy:
    """Base of the strategies: a way to compute per-sample gradients of `values`.

    Args:
        backbone: in eval mode.
        parameters: `(name within the backbone, weight)`, all of them requiring gradients.
        values: see `Values`.
    """

    name = ""

    def __init__(
        self, backbone: nn.Module, parameters: list[tuple[str, nn.Parameter]], values: Values
    ) -> None:
        self.backbone = backbone
        self.values = values
        self.names = [name for name, _ in parameters]
        self.weights = [weight for _, weight in parameters]

    def gradients(self, batch: Batch) -> list[Tensor]:
        """Gradient of each sample's value by each weight, `[B, *shape]`."""
        raise NotImplementedError

    def squares(self, batch: Batch) -> list[Tensor]:
        """Squared gradients, summed over samples and their values, in the shape of each weight."""
        raise NotImplementedError

    def table(self, batch: Batch) -> Tensor:
        """Values as `[B, S]`, with a graph."""
        values = self.values(batch)
        return values if values.ndim == 2 else values[:, None]


def single_value(table: Tensor) -> Tensor:
    """The only column of `[B, S]`.

    Raises:
        InputError: there are several.
    """
    if table.shape[1] != 1:
        raise InputError(
            f"per-sample gradients need one value for each sample, not {table.shape[1]}; only "
            "`squares` takes several."
        )
    return table[:, 0]


class LoopStrategy(Strategy):
    """One sample at a time; works on every network."""

    name = "loop"

    def _rows(self, batch: Batch) -> Iterator[Tensor]:
        """Values `[S]` of each sample, with a graph."""
        for row in range(batch_size(batch)):
            with torch.enable_grad():
                yield self.table(rows_of(batch, slice(row, row + 1)))[0]

    def _gradient(self, value: Tensor, keep: bool) -> list[Tensor]:
        return list(
            torch.autograd.grad(
                value, self.weights, retain_graph=keep, allow_unused=True, materialize_grads=True
            )
        )

    def gradients(self, batch: Batch) -> list[Tensor]:
        by_sample = [
            self._gradient(single_value(values[None])[0], keep=False)
            for values in self._rows(batch)
        ]
        return [torch.stack(rows) for rows in zip(*by_sample, strict=True)]

    def squares(self, batch: Batch) -> list[Tensor]:
        total = [torch.zeros_like(weight) for weight in self.weights]
        for values in self._rows(batch):
            for position, value in enumerate(values):
                gradient = self._gradient(value, keep=position + 1 < len(values))
                torch._foreach_addcmul_(total, gradient, gradient)
        return total


class _ValuesModule(nn.Module):
    """Module whose forward is `values`, for `functional_call` with other weights."""

    def __init__(self, backbone: nn.Module, values: Values) -> None:
        super().__init__()
        self.backbone = backbone
        self.values = values

    def forward(self, batch: Batch) -> Tensor:
        return self.values(batch)


class VmapStrategy(Strategy):
    """`torch.func.vmap` over `torch.func.vjp`; works on what torch.func can transform."""

    name = "vmap"

    def _over_samples(self, batch: Batch, squares: bool) -> list[Tensor]:
        module = _ValuesModule(self.backbone, self.values)
        size = batch_size(batch)
        rows = {name: value for name, value in batch.items() if _is_row(value, size)}
        fixed = {name: value for name, value in batch.items() if name not in rows}
        weights = tuple(weight.detach() for weight in self.weights)

        def gradients_of_row(row: dict[str, Tensor]) -> list[Tensor]:
            # the sample's values as a function of the weights
            def table(*weights: Tensor) -> Tensor:
                swapped = {
                    f"backbone.{name}": weight
                    for name, weight in zip(self.names, weights, strict=True)
                }
                sample = {**fixed, **{name: value[None] for name, value in row.items()}}
                values = torch.func.functional_call(module, swapped, (sample,))
                return values[0] if values.ndim == 2 else values

            # one backward pass for each value
            values, pull = torch.func.vjp(table, *weights)[:2]
            if not squares:
                single_value(values[None])
            directions = torch.eye(len(values), dtype=values.dtype, device=values.device)
            by_value = [pull(direction) for direction in directions]
            if not squares:
                return list(by_value[0])
            return [
                torch.stack([gradient.square() for gradient in gradients]).sum(0)
                for gradients in zip(*by_value, strict=True)
            ]

        # weights that are not among the parameters may require gradients too
        return [row.detach() for row in torch.func.vmap(gradients_of_row)(rows)]

    def gradients(self, batch: Batch) -> list[Tensor]:
        return self._over_samples(batch, squares=False)

    def squares(self, batch: Batch) -> list[Tensor]:
        return [rows.sum(0) for rows in self._over_samples(batch, squares=True)]


def batch_size(batch: Batch) -> int:
    """Number of samples of a batch: the length of its first tensor that is no scalar."""
    return next(
        len(value) for value in batch.values() if isinstance(value, Tensor) and value.ndim > 0
    )


def rows_of(batch: Batch, rows: slice) -> dict[str, Any]:
    """Some rows of a batch; entries that do not belong to samples stay as they are."""
    size = batch_size(batch)
    return {name: value[rows] if _is_row(value, size) else value for name, value in batch.items()}


def _is_row(value: Any, size: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == size
