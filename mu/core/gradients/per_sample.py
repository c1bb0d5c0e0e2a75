"""Per-sample gradients and sums of their squares, by the fastest of three strategies.

* `hooks`: one batched forward and one backward that stops at the layers' outputs; each layer's
  per-sample weight gradients follow from its input and the gradient of its output. It has rules for
  convolutions, linear layers and the usual norms.
* `vmap`: `torch.func.vmap` over `torch.func.vjp`, for what torch.func can transform.
* `loop`: one sample at a time; it works on every network, and the other two are checked against it.

Measured (CPU time, one thread, sums of squares, against one batched forward and backward):
ResNet-20, 64 samples of 32x32: hooks 1.4, vmap 1.4, loop 2.9 times; ResNet-18, 16 samples: hooks
1.3, vmap 4.0, loop 2.0 times. `make bench` measures again.

The backbone must be in eval mode: batch norm in train mode makes one sample's gradient depend on
the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mu.core.gradients.hooks import HookStrategy
from mu.core.gradients.strategies import LoopStrategy, Strategy, Values, VmapStrategy, rows_of
from mu.data.batch import Batch
from mu.utils.errors import InputError
from mu.utils.sharded import is_sharded

Choice = Literal["auto", "hooks", "vmap", "loop"]
_STRATEGIES: dict[str, type[Strategy]] = {
    "hooks": HookStrategy,
    "vmap": VmapStrategy,
    "loop": LoopStrategy,
}
_TRIAL = 8  # samples on which strategies are timed and checked
# hooks give way only to something clearly faster, so that noise in the timing rarely changes the
# choice
_PREFERRED = 0.8
# a process chooses once for a network, so that two equal runs in it use the same strategy
_CHOSEN: dict[tuple[object, ...], str] = {}


class PerSample:
    """Per-sample gradients of `values` by some of a backbone's weights.

    `auto` times the strategies on the first few samples and takes the fastest one that is right;
    the process remembers the choice. Strategies differ in rounding, so a run that must be the same
    bit for bit in another process names one.

    Args:
        backbone: in eval mode; it is not changed.
        parameters: `(name within the backbone, weight)`, all of them requiring gradients.
        values: from a batch to `[B]`, or `[B, S]` for S values of each sample; a sample's values
            depend on that sample only.
        choose: `auto`, or a strategy's name.

    Example:
        >>> network = nn.Linear(2, 1, bias=False).eval()
        >>> values = lambda batch: network(batch["x"])[:, 0]
        >>> per_sample = PerSample(network, list(network.named_parameters()), values, "loop")
        >>> per_sample.gradients({"x": torch.tensor([[1.0, 2.0], [3.0, 4.0]])})
        [tensor([[[1., 2.]],
        <BLANKLINE>
                [[3., 4.]]])]
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
        if choose not in (*_STRATEGIES, "auto"):
            raise InputError(
                f"there is no strategy {choose!r} for per-sample gradients; choose auto, hooks, "
                "vmap or loop."
            )
        if any(is_sharded(weight) for _, weight in parameters):
            raise InputError(
                "per-sample gradients need every weight on every rank, and these are sharded over "
                "ranks; take the strategy ddp."
            )
        self._chosen: dict[str, Strategy] = {}

    def gradients(self, batch: Batch) -> list[Tensor]:
        """Gradient of each sample's value by each weight, `[B, *shape]`.

        `values` must give `[B]`. The gradients take B times the memory of the weights.
        """
        return self._strategy("gradients", batch).gradients(batch)

    def squares(self, batch: Batch) -> list[Tensor]:
        """`Σ_b Σ_s (∂v_bs / ∂θ)²` in the shape of each weight; values share the forward pass."""
        return self._strategy("squares", batch).squares(batch)

    def chosen(self, quantity: Literal["gradients", "squares"]) -> str:
        """Name of the strategy in use, after the first call."""
        return self._chosen[quantity].name

    def _make(self, name: str) -> Strategy:
        return _STRATEGIES[name](self.backbone, self.parameters, self.values)

    def _strategy(self, quantity: str, batch: Batch) -> Strategy:
        if any(layer.training for layer in self.backbone.modules()):
            raise InputError(
                "per-sample gradients need the backbone in eval mode, because batch norm mixes "
                "the samples of a batch."
            )
        if quantity not in self._chosen:
            layers = tuple(type(layer) for layer in self.backbone.modules())
            weights = tuple((name, tuple(p.shape), p.device) for name, p in self.parameters)
            key = (quantity, self.choose, layers, weights)
            few = rows_of(batch, slice(0, _TRIAL))
            if key not in _CHOSEN:
                choose = self._fastest if self.choose == "auto" else self._checked
                _CHOSEN[key] = choose(quantity, few)
            self._chosen[quantity] = self._make(_CHOSEN[key])
        return self._chosen[quantity]

    def _fastest(self, quantity: str, few: Batch) -> str:
        """Name of the fastest strategy that agrees with the loop."""
        start = _now()
        truth = getattr(self._make("loop"), quantity)(few)
        seconds = {"loop": _now() - start}
        for name in ("hooks", "vmap"):
            try:
                compute = getattr(self._make(name), quantity)
                right = _agree(compute(few), truth)
            except (InputError, RuntimeError, NotImplementedError):
                # the strategy does not work on some layer or operation
                continue
            if right:
                seconds[name] = _seconds(lambda compute=compute: compute(few))
        fastest = min(seconds, key=lambda name: seconds[name])
        prefers_hooks = "hooks" in seconds and seconds[fastest] > _PREFERRED * seconds["hooks"]
        return "hooks" if prefers_hooks else fastest

    def _checked(self, quantity: str, few: Batch) -> str:
        """The strategy that was chosen by name, after a check against the loop."""
        if self.choose != "loop":
            two = rows_of(few, slice(0, 2))
            values = getattr(self._make(self.choose), quantity)(two)
            if not _agree(values, getattr(self._make("loop"), quantity)(two)):
                raise InputError(
                    f"the strategy {self.choose!r} gives wrong per-sample gradients on this "
                    "network, which uses a weight outside of its layer's forward; choose auto or "
                    "loop."
                )
        return self.choose


def _agree(values: list[Tensor], truth: list[Tensor]) -> bool:
    # float32 gradients of deep networks differ by some 1e-4 between algorithms, because units near
    # zero change sides; the check is for a layer that was missed or misunderstood
    largest = max(float(value.norm()) for value in truth)
    return all(
        float((a - b).norm()) <= 1e-2 * float(b.norm()) + 1e-6 * largest
        for a, b in zip(values, truth, strict=True)
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
