"""Checks during fit: non-finite losses or weights, and fits that move no weight."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from mu.core.protocols import Method
from mu.utils.errors import RunError


class FitChecks:
    """The checks of one fit.

    A method calls `check_loss` with the loss of each step; the base class calls the rest. A loss on
    an accelerator is looked at one step late, so that no step waits for the device.
    """

    def __init__(self) -> None:
        self._pending: tuple[int, Tensor] | None = None
        self._initial: list[float] | None = None
        self._expects_no_change = False

    def start(self, method: Method) -> None:
        """Remember the weights with which a fit begins."""
        self._initial = self._sums(method)
        self._expects_no_change = False

    def expect_no_change(self) -> None:
        """Say that weights which end where they began are an answer (SCRUB+R rewinds to the start)."""
        self._expects_no_change = True

    def check_loss(self, method: Method, loss: Tensor) -> None:
        """Stop at a loss that is not finite.

        Raises:
            RunError: names the method and the step.
        """
        if loss.device.type != "cpu":
            self.check_pending(method)
        self._pending = (method.trainer.global_step, loss.detach())
        if loss.device.type == "cpu":
            self.check_pending(method)

    def check_pending(self, method: Method) -> None:
        """Look at the last loss, if that has not been done.

        Raises:
            RunError: when it is not finite.
        """
        if self._pending is not None and not isfinite(self._pending[1].item()):
            step, loss = self._pending
            self._pending = None
            raise RunError(
                f"the loss of {type(method).__name__} became {float(loss)} at step {step}; the "
                "last good checkpoint is kept; lower the learning rate or the weight of the "
                "ascent term."
            )

    def check_weights(self, method: Method) -> None:
        """Stop before weights that are not finite take the place of the last good checkpoint (a
        finite loss may have made them).

        Raises:
            RunError: names the first such weight.
        """
        for name, weight in method.trainable():
            finite = bool(torch.isfinite(_local(weight)).all())
            if _on_any_rank(method, not finite):
                raise RunError(
                    f"{type(method).__name__} made weights that are not finite (in {name}); the "
                    "last good checkpoint is kept; lower the learning rate or the weight of the "
                    "ascent term."
                )

    def check_moved(self, method: Method, steps: int) -> None:
        """Stop where a fit of `steps` steps has moved no weight.

        Raises:
            RunError: says what to look at.
        """
        if not self._expects_no_change and not _on_any_rank(
            method, self._sums(method) != self._initial
        ):
            raise RunError(
                f"{type(method).__name__} ran {steps} steps and moved no weight; check learning "
                "rate, mask and data."
            )

    @staticmethod
    @torch.no_grad()
    def _sums(method: Method) -> list[float]:
        """Two sums over each weight in float64, one weight at a time: all at once would take twice
        a large model's memory.
        """
        weights = (_local(weight).double() for _, weight in method.trainable())
        return [float(value.abs().sum() + value.flatten()[::7].sum()) for value in weights]


def _on_any_rank(method: Method, value: bool) -> bool:
    """Whether `value` is true on some rank, where each holds a part of the weights; elsewhere all
    ranks hold the same weights.
    """
    if method.device_mesh is None:
        return value
    flag = torch.tensor(float(value), device=method.device)
    return bool(method.trainer.strategy.reduce(flag, reduce_op="sum"))


def _local(weight: Tensor) -> Tensor:
    """A weight, or the part of a sharded weight that this rank holds."""
    return weight.to_local() if hasattr(weight, "to_local") else weight  # type: ignore[operator]
