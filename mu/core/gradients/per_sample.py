"""Per-sample gradients, and sums of their squares, by whichever of three ways is fastest on the
model at hand.

* `hooks`: one batched forward and one backward that stops at the layers' outputs; each layer's
  per-sample weight gradients follow from
  its saved input and the gradient of its output. Knows convolutions, linear layers and the usual
  norms.
* `vmap`: `torch.func.vmap` over `torch.func.vjp`; knows whatever torch.func can transform.
* `loop`: one sample at a time; always works, and is what the other two are checked against before
  they are believed.

Measured (CPU time, one thread, sums of squares, against one batched forward and backward):
ResNet-20, 64 samples of 32x32: hooks 1.4, vmap 1.4, loop 2.9 times; ResNet-18, 16 samples: hooks
1.3, vmap 4.0, loop 2.0 times. `make bench` measures again.

The backbone must be in eval mode: batch norm in train mode makes one sample's gradient depend on
the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mu.core.gradients.layers import check_layer, layer_gradient, squared_gradient
from mu.data.batch import Batch
from mu.utils.errors import InputError

Values = Callable[[Batch], Tensor]
"""From a batch to `[B]`, or `[B, S]` for S values of each sample; a sample's values depend on that
sample only.
"""
Choice = Literal["auto", "hooks", "vmap", "loop"]
_TRIAL = 8  # samples on which the ways are timed and checked
# hooks are left only for something clearly faster, so that noise in the timing rarely changes the
# choice
_PREFERRED = 0.8
_CHOSEN: dict[
    tuple[object, ...], str
] = {}  # a process chooses once for a network: two equal runs in it take the same way


class PerSample:
    """Per-sample gradients of `values` by some of a backbone's weights.

    `auto` times the ways on the first few samples it sees and keeps the fastest that is right; the
    choice is remembered in the process. The ways differ in rounding, so a run that must be the same
    bit for bit in another process names one.

    Args:
        backbone: in eval mode; nothing of it is changed.
        parameters: `(name within the backbone, weight)`, all of them requiring gradients.
        values: see `Values`.
        choose: `auto`, or one of the ways.
    """

    def __init__(
        self,
        backbone: nn.Module,
        parameters: list[tuple[str, nn.Parameter]],
        values: Values,
        choose: Choice = "auto",
    ) -> None:
        self.backbone = backbone
        self.parameters = parameters
        self.values = values
        self.choose = choose
        self._ways: dict[str, type[Strategy]] = {
            "hooks": HookStrategy,
            "vmap": VmapStrategy,
            "loop": LoopStrategy,
        }
        if choose not in (*self._ways, "auto"):
            raise InputError(
                f"there is no way {choose!r} to per-sample gradients; choose auto, hooks, vmap or "
                "loop."
            )
        self._chosen: dict[str, Strategy] = {}

    def gradients(self, batch: Batch) -> list[Tensor]:
        """`[B, *shape]` for each weight; `values` must give `[B]`. Takes B times the memory of the
        weights.
        """
        return self._way("gradients", batch).gradients(batch)

    def squares(self, batch: Batch) -> list[Tensor]:
        """`Σ_b Σ_s (∂v_bs / ∂θ)²` in the shape of each weight; the forward pass is shared by the S
        values.
        """
        return self._way("squares", batch).squares(batch)

    def chosen(self, kind: Literal["gradients", "squares"]) -> str:
        """Name of the way in use, after the first call."""
        return self._chosen[kind].name

    def _way(self, kind: str, batch: Batch) -> Strategy:
        if any(layer.training for layer in self.backbone.modules()):
            raise InputError(
                "per-sample gradients need the backbone in eval mode, because batch norm mixes "
                "the samples of a batch."
            )
        if kind not in self._chosen:
            kinds = tuple(type(layer) for layer in self.backbone.modules())
            key = (
                kind,
                self.choose,
                kinds,
                tuple((n, tuple(p.shape), p.device) for n, p in self.parameters),
            )
            few = _rows(batch, slice(0, _TRIAL))
            name = _CHOSEN.get(key) or (
                self._fastest(kind, few) if self.choose == "auto" else self._named(kind, few)
            )
            _CHOSEN[key] = name
            self._chosen[kind] = self._ways[name](self)
        return self._chosen[kind]

    def _fastest(self, kind: str, few: Batch) -> str:
        start = _now()
        truth = getattr(LoopStrategy(self), kind)(few)
        seconds = {"loop": _now() - start}
        for name in ("hooks", "vmap"):
            try:
                way = self._ways[name](self)
                right = _agree(getattr(way, kind)(few), truth)
            except (
                InputError,
                RuntimeError,
                NotImplementedError,
            ):
                # a layer or an operation that this way does not know
                continue
            if right:
                seconds[name] = _seconds(lambda way=way: getattr(way, kind)(few))
        fastest = min(seconds, key=lambda name: seconds[name])
        return (
            "hooks"
            if "hooks" in seconds and seconds[fastest] > _PREFERRED * seconds["hooks"]
            else fastest
        )

    def _named(self, kind: str, few: Batch) -> str:
        if self.choose != "loop":
            two = _rows(few, slice(0, 2))
            if not _agree(
                getattr(self._ways[self.choose](self), kind)(two),
                getattr(LoopStrategy(self), kind)(two),
            ):
                raise InputError(
                    f"the way {self.choose!r} gives wrong per-sample gradients on this network, "
                    "which uses a weight outside of its layer's forward; choose auto or loop."
                )
        return self.choose


class Strategy:
    name = ""

    def __init__(self, owner: PerSample) -> None:
        self.backbone = owner.backbone
        self.values = owner.values
        self.names = [name for name, _ in owner.parameters]
        self.weights = [weight for _, weight in owner.parameters]

    def gradients(self, batch: Batch) -> list[Tensor]:
        raise NotImplementedError

    def squares(self, batch: Batch) -> list[Tensor]:
        raise NotImplementedError

    def _table(self, batch: Batch) -> Tensor:
        """Values as `[B, S]`, with a graph."""
        values = self.values(batch)
        return values if values.ndim == 2 else values[:, None]


def _single(table: Tensor) -> Tensor:
    if table.shape[1] != 1:
        raise InputError(
            f"per-sample gradients need one value for each sample, not {table.shape[1]}; only "
            "`squares` takes several."
        )
    return table[:, 0]


class LoopStrategy(Strategy):
    name = "loop"

    def _each(self, batch: Batch) -> Iterator[Tensor]:
        for row in range(_size(batch)):
            with torch.enable_grad():
                yield self._table(_rows(batch, slice(row, row + 1)))[0]

    def _gradient(self, value: Tensor, keep: bool) -> list[Tensor]:
        return list(
            torch.autograd.grad(
                value, self.weights, retain_graph=keep, allow_unused=True, materialize_grads=True
            )
        )

    def gradients(self, batch: Batch) -> list[Tensor]:
        each = [
            self._gradient(_single(values[None])[0], keep=False) for values in self._each(batch)
        ]
        return [torch.stack(rows) for rows in zip(*each, strict=True)]

    def squares(self, batch: Batch) -> list[Tensor]:
        total = [torch.zeros_like(weight) for weight in self.weights]
        for values in self._each(batch):
            for place, value in enumerate(values):
                gradient = self._gradient(value, keep=place + 1 < len(values))
                torch._foreach_addcmul_(total, gradient, gradient)
        return total


class _Called(nn.Module):
    """A module whose forward is `values`, so that `functional_call` can swap the backbone's weights
    under it.
    """

    def __init__(self, backbone: nn.Module, values: Values) -> None:
        super().__init__()
        self.backbone = backbone
        self.values = values

    def forward(self, batch: Batch) -> Tensor:
        return self.values(batch)


class VmapStrategy(Strategy):
    name = "vmap"

    def _over_samples(self, batch: Batch, squares: bool) -> list[Tensor]:
        called = _Called(self.backbone, self.values)
        size = _size(batch)
        rows = {name: value for name, value in batch.items() if _is_row(value, size)}
        fixed = {name: value for name, value in batch.items() if name not in rows}

        def one(row: dict[str, Tensor]) -> list[Tensor]:
            def table(*weights: Tensor) -> Tensor:
                swapped = {
                    f"backbone.{name}": weight
                    for name, weight in zip(self.names, weights, strict=True)
                }
                sample = {**fixed, **{name: value[None] for name, value in row.items()}}
                values = torch.func.functional_call(called, swapped, (sample,))
                return values[0] if values.ndim == 2 else values

            values, pull = torch.func.vjp(table, *weights)[:2]
            if not squares:
                _single(values[None])
            each = [
                pull(direction)
                for direction in torch.eye(len(values), dtype=values.dtype, device=values.device)
            ]
            if not squares:
                return list(each[0])
            return [
                torch.stack([gradient.square() for gradient in same]).sum(0)
                for same in zip(*each, strict=True)
            ]

        weights = tuple(weight.detach() for weight in self.weights)
        # weights that are not asked for may require gradients too
        return [row.detach() for row in torch.func.vmap(one)(rows)]

    def gradients(self, batch: Batch) -> list[Tensor]:
        return self._over_samples(batch, squares=False)

    def squares(self, batch: Batch) -> list[Tensor]:
        return [rows.sum(0) for rows in self._over_samples(batch, squares=True)]


# ---- hooks ---------------------------------------------------------------------------------------

Use = tuple[Any, str, Tensor, Tensor]
"""A layer, the name of its weight, the layer's input, the gradient of its output."""


class _Tap(torch.autograd.Function):
    """The identity on a layer's output, which hands over the gradient that comes back.

    `probe` makes the backward pass come here, and stop here at the first layer: weight gradients of
    the whole batch are never made. The output is passed on in place, because a view could not be
    changed by an in-place ReLU behind it.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, probe: Tensor, hand_over: Callable[[Tensor], None]
    ) -> Tensor:
        ctx.hand_over = hand_over
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        ctx.hand_over(gradient)
        return gradient, gradient.new_zeros(()), None


class HookStrategy(Strategy):
    name = "hooks"

    def __init__(self, owner: PerSample) -> None:
        super().__init__(owner)
        place = {id(weight): number for number, weight in enumerate(self.weights)}
        self.layers: dict[nn.Module, dict[str, int]] = {}
        for layer in self.backbone.modules():
            own = {
                name: place[id(w)]
                for name, w in layer.named_parameters(recurse=False)
                if id(w) in place
            }
            if own:
                check_layer(layer)
                self.layers[layer] = own

    def _run(
        self,
        batch: Batch,
        arrive: Callable[[int, Use, bool], None],
        after: Callable[[], None],
        single: bool = False,
    ) -> None:
        """One forward, and one backward for each value.

        Args:
            batch: see `PerSample`.
            arrive: told, while a backward goes on, of a weight's place, of a use of it, and whether
                it is the only one.
            after: called after each backward.
            single: refuse several values of a sample.
        """
        uses = [0] * len(self.weights)
        probe = self.weights[0].new_zeros(()).requires_grad_()

        def tap(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not output.requires_grad:
                return output
            source = given[0].detach()
            own = self.layers[layer]
            for place in own.values():
                uses[place] += 1

            def hand_over(gradient: Tensor) -> None:
                for name, place in own.items():
                    arrive(place, (layer, name, source, gradient), uses[place] == 1)

            return _Tap.apply(output, probe, hand_over)  # type: ignore[return-value]

        handles = [layer.register_forward_hook(tap) for layer in self.layers]
        try:
            with torch.enable_grad():
                table = self._table(batch)
                values = (_single(table)[:, None] if single else table).sum(0)
                for number, value in enumerate(values):
                    torch.autograd.grad(
                        value, probe, retain_graph=number + 1 < len(values), allow_unused=True
                    )
                    after()
        finally:
            for handle in handles:
                handle.remove()

    def gradients(self, batch: Batch) -> list[Tensor]:
        size = _size(batch)
        rows: dict[int, Tensor] = {}

        def arrive(place: int, use: Use, alone: bool) -> None:
            rows[place] = (
                layer_gradient(*use) if place not in rows else rows[place] + layer_gradient(*use)
            )

        self._run(batch, arrive, lambda: None, single=True)
        return [
            rows[place] if place in rows else weight.new_zeros(size, *weight.shape)
            for place, weight in enumerate(self.weights)
        ]

    def squares(self, batch: Batch) -> list[Tensor]:
        total = [torch.zeros_like(weight) for weight in self.weights]
        shared: dict[int, Tensor] = {}

        def arrive(place: int, use: Use, alone: bool) -> None:
            if alone:
                total[place] += squared_gradient(*use)
            else:
                # used twice, a weight has one gradient, the sum of both: it is added up before it
                # is squared
                shared[place] = (
                    layer_gradient(*use)
                    if place not in shared
                    else shared[place] + layer_gradient(*use)
                )

        def after() -> None:
            for place, rows in shared.items():
                total[place] += rows.square().sum(0)
            shared.clear()

        self._run(batch, arrive, after)
        return total


# ---- batches and trials --------------------------------------------------------------------------


def _size(batch: Batch) -> int:
    return next(
        len(value) for value in batch.values() if isinstance(value, Tensor) and value.ndim > 0
    )


def _is_row(value: Any, size: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == size


def _rows(batch: Batch, rows: slice) -> dict[str, Any]:
    """Some rows of a batch; entries that do not belong to samples stay as they are."""
    size = _size(batch)
    return {name: value[rows] if _is_row(value, size) else value for name, value in batch.items()}


def _agree(found: list[Tensor], truth: list[Tensor]) -> bool:
    # float32 gradients of deep networks differ by some 1e-4 between algorithms, because units near
    # zero change sides; what is looked
    # for here is a layer that was missed or misunderstood
    largest = max(float(value.norm()) for value in truth)
    return all(
        float((a - b).norm()) <= 1e-2 * float(b.norm()) + 1e-6 * largest
        for a, b in zip(found, truth, strict=True)
    )


def _seconds(action: Callable[[], Any]) -> float:
    """The shorter of two runs."""
    times = []
    for _ in range(2):
        start = _now()
        action()
        times.append(_now() - start)
    return min(times)


def _now() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
