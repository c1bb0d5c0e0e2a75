"""Checks during fit: non-finite losses or weights, and fits that move no weight."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from mu.core.protocols import Method
from mu.utils.errors import RunError


class FitChecks:
    """Checks of one fit: finite losses, finite weights, and weights that moved.

    A method calls `check_loss` with the loss of each step; the base class calls the rest. A loss on
    an accelerator is looked at one step late, so that no step waits for the device.
    """

    def __init__(self) -> None:
        self._pending: tuple[int, Tensor] | None = None
        self._initial: list[float] | None = None
        self._expects_no_change = False

    def start(self, method: Method) -> None:
        """Record the weights with which a fit begins."""
        self._initial = self._sums(method)
        self._expects_no_change = False

    def expect_no_change(self) -> None:
        """Accept weights that end where they began (SCRUB+R may rewind to the start)."""
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
        """Check the last loss, unless that was done in its step.

        Raises:
            RunError: when that loss is not finite.
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
        """Stop before weights that are not finite replace the last good checkpoint.

        A finite loss may have made them.

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

    def check_end(self, method: Method, steps: int | None, outdated_norm: bool = False) -> None:
        """Stop where a fit has seen no batch, or has moved no weight.

        Args:
            method: at the end of its fit.
            steps: optimizer steps of this fit; None where it has seen no batch.
            outdated_norm: whether batch-norm statistics were to be recomputed, and were not.

        Raises:
            RunError: names the method and the settings to check.
        """
        trainer = method.trainer
        name = type(method).__name__
        if steps is None:
            # a finished run that is resumed has no batch left, which is no error
            if trainer.fit_loop.max_batches == 0 and trainer.limit_train_batches:
                raise RunError(
                    f"the plan of {name} has no batch in epoch {trainer.current_epoch}, so no "
                    "weight moved; check the plan and the sizes of the task's parts."
                )
            return
        if steps == 0 or trainer.interrupted:
            return
        if outdated_norm:
            raise RunError(
                "the run was stopped after its last epoch had ended, too late for "
                "norm=recalibrate; give EarlyStopping check_on_train_epoch_end: false."
            )
        if not self._expects_no_change and not _on_any_rank(
            method, self._sums(method) != self._initial
        ):
            raise RunError(
                f"{name} ran {steps} steps and moved no weight; check learning rate, mask and data."
            )

    @staticmethod
    @torch.no_grad()
    def _sums(method: Method) -> list[float]:
        """Two sums over each weight in float64, by which a moved weight shows."""
        # one weight at a time, because all at once would take twice a large model's memory
        weights = (_local(weight).double() for _, weight in method.trainable())
        return [float(value.abs().sum() + value.flatten()[::7].sum()) for value in weights]


def _on_any_rank(method: Method, value: bool) -> bool:
    """Whether `value` is true on some rank, where weights are sharded over ranks."""
    if method.device_mesh is None:
        return value  # all ranks hold the same weights
    flag = torch.tensor(float(value), device=method.device)
    return bool(method.trainer.strategy.reduce(flag, reduce_op="sum"))


def _local(weight: Tensor) -> Tensor:
    """A weight, or the part of a sharded weight that this rank holds."""
    return weight.to_local() if hasattr(weight, "to_local") else weight  # type: ignore[operator]
