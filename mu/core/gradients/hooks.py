"""Per-sample gradients by hooks on layers: one batched forward, one backward for each value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mu.core.gradients.layers import check_layer, has_rule, layer_gradient, squared_gradient
from mu.core.gradients.strategies import Strategy, Values, batch_size, single_value
from mu.data.batch import Batch
from mu.utils.errors import InputError

LayerCall = tuple[Any, str, Tensor, Tensor]
"""A layer, the name of its weight, the layer's input, the gradient of its output."""


class _Tap(torch.autograd.Function):
    """The identity on a layer's output, with a callback for the gradient that comes back.

    `probe` makes the backward pass come here, and stop here at the first layer: weight gradients of
    the whole batch are never made. The output is passed on in place, because a view could not be
    changed by an in-place ReLU behind it.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, probe: Tensor, callback: Callable[[Tensor], None]
    ) -> Tensor:
        ctx.callback = callback
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        ctx.callback(gradient)
        return gradient, gradient.new_zeros(()), None


class HookStrategy(Strategy):
    """Per-sample gradients of each layer from its input and the gradient of its output.

    Convolutions, linear layers and the usual norms have rules, other layers are run again (see
    `layers`). A layer may see several rows of a sample, one after the other (windows).
    """

    name = "hooks"

    def __init__(
        self, backbone: nn.Module, parameters: list[tuple[str, nn.Parameter]], values: Values
    ) -> None:
        super().__init__(backbone, parameters, values)
        positions = {id(weight): position for position, weight in enumerate(self.weights)}
        # positions of a layer's weights among all weights, by their name in the layer
        self.layers: dict[nn.Module, dict[str, int]] = {}
        for layer in self.backbone.modules():
            layer_positions = {
                name: positions[id(weight)]
                for name, weight in layer.named_parameters(recurse=False)
                if id(weight) in positions
            }
            if layer_positions:
                check_layer(layer)
                self.layers[layer] = layer_positions

    def _run(
        self,
        batch: Batch,
        on_gradient: Callable[[int, LayerCall, bool], None],
        on_backward_end: Callable[[], None],
        single: bool = False,
    ) -> None:
        """One forward, and one backward for each value.

        Args:
            batch: see `PerSample`.
            on_gradient: called during a backward with a weight's position, a call of its layer, and
                whether the layer was called only once.
            on_backward_end: called after each backward.
            single: refuse several values of a sample.
        """
        calls = [0] * len(self.weights)
        size = batch_size(batch)
        probe = self.weights[0].new_zeros(()).requires_grad_()

        def tap(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            if not isinstance(output, Tensor) or (len(inputs) != 1 and not has_rule(layer)):
                raise InputError(
                    f"per-sample gradients by hooks need one tensor as input and output of a "
                    f"layer, unlike those of {type(layer).__name__}; choose auto, vmap or loop."
                )
            if not output.requires_grad:
                return output
            source = inputs[0].detach()
            positions = self.layers[layer]
            for position in positions.values():
                calls[position] += 1

            def callback(gradient: Tensor) -> None:
                for name, position in positions.items():
                    call = (layer, name, source, gradient)
                    # rows of a sample are added up before the square, as those of two calls are
                    only = calls[position] == 1 and len(source) == size
                    on_gradient(position, call, only)

            # an activation inside a layer may have saved the output, which must stay as it is
            output = output if has_rule(layer) else output.clone()
            return _Tap.apply(output, probe, callback)  # type: ignore[return-value]

        handles = [layer.register_forward_hook(tap) for layer in self.layers]
        try:
            with torch.enable_grad():
                table = self.table(batch)
                values = (single_value(table)[:, None] if single else table).sum(0)
                for position, value in enumerate(values):
                    torch.autograd.grad(
                        value, probe, retain_graph=position + 1 < len(values), allow_unused=True
                    )
                    on_backward_end()
        finally:
            for handle in handles:
                handle.remove()

    def gradients(self, batch: Batch) -> list[Tensor]:
        size = batch_size(batch)
        rows: dict[int, Tensor] = {}

        def on_gradient(position: int, call: LayerCall, only: bool) -> None:
            _add(rows, position, _by_sample(layer_gradient(*call), size))

        self._run(batch, on_gradient, lambda: None, single=True)
        return [
            rows[position] if position in rows else weight.new_zeros(size, *weight.shape)
            for position, weight in enumerate(self.weights)
        ]

    def squares(self, batch: Batch) -> list[Tensor]:
        size = batch_size(batch)
        total = [torch.zeros_like(weight) for weight in self.weights]
        shared: dict[int, Tensor] = {}

        def on_gradient(position: int, call: LayerCall, only: bool) -> None:
            if only:
                total[position] += squared_gradient(*call)
            else:
                # of a layer that is called twice, the gradients are added up before the square
                _add(shared, position, _by_sample(layer_gradient(*call), size))

        def on_backward_end() -> None:
            for position, rows in shared.items():
                total[position] += rows.square().sum(0)
            shared.clear()

        self._run(batch, on_gradient, on_backward_end)
        return total


def _by_sample(rows: Tensor, size: int) -> Tensor:
    """Gradients `[B, ...]` from those of consecutive rows of each sample."""
    if len(rows) == size:
        return rows
    if len(rows) % size:
        raise InputError(
            f"per-sample gradients by hooks found a layer that sees {len(rows)} rows of {size} "
            "samples; choose auto, vmap or loop."
        )
    return rows.view(size, -1, *rows.shape[1:]).sum(1)


def _add(sums: dict[int, Tensor], position: int, value: Tensor) -> None:
    sums[position] = sums[position] + value if position in sums else value
