"""Checks during fit: non-finite losses or weights, and fits that move no weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from mu.core.protocols import Method
from mu.utils.errors import InputError, RunError
from mu.utils.master_weights import HALF

SAMPLE = 2**22
"""Weights in half precision that are compared at the end with those of the start."""
FEW = 0.5
"""Share of moved weights below which a fit in half precision warns."""


class FitChecks:
    """Checks of one fit: finite losses, finite weights, and weights that moved.

    A method calls `check_loss` with the loss of each step; the base class calls the rest. A loss on
    an accelerator is looked at one step late, so that no step waits for the device.
    """

    def __init__(self) -> None:
        self._pending: tuple[int, Tensor, Any] | None = None
        self._initial: list[float] | None = None
        self._initial_half: Tensor | None = None
        self._expects_no_change = False
        self._largest_rate: float | None = None
        self.batch: Any = None

    def start(self, method: Method) -> None:
        """Record the weights with which a fit begins.

        Raises:
            InputError: a weight of the model is not finite.
        """
        for name, weight in method.backbone.named_parameters():
            finite = bool(torch.isfinite(_local(weight)).all())
            if _on_any_rank(method, not finite):
                raise InputError(
                    f"the model has weights that are not finite before the first step (in {name}); "
                    "its file is damaged, or they overflow in its dtype; load other weights, or "
                    "give the model dtype: float32."
                )
        self._initial = self._sums(method)
        self._initial_half = _half_sample(method)
        self._expects_no_change = False
        self._largest_rate = None

    def note_rates(self, optimizer: Any) -> None:
        """Record the largest learning rate of a schedule's steps so far."""
        rates = [
            float(group["lr"])
            for group in optimizer.param_groups
            if float(group.get("initial_lr", 0)) > 0  # set by a schedule
        ]
        if rates:
            self._largest_rate = max(self._largest_rate or 0.0, *rates)

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
        self._pending = (method.trainer.global_step, loss.detach(), self.batch)
        if loss.device.type == "cpu":
            self.check_pending(method)

    def check_pending(self, method: Method) -> None:
        """Check the last loss, unless that was done in its step.

        Raises:
            RunError: when that loss is not finite.
        """
        if self._pending is None:
            return
        step, loss, batch = self._pending
        self._pending = None
        if not isfinite(loss.item()):
            cause = nonfinite_input(batch)
            if cause:
                raise InputError(
                    f"the loss of {type(method).__name__} became {float(loss)} at step {step}, "
                    f"because {cause} has values that are not finite; mend or leave out these data."
                )
            raise RunError(
                f"the loss of {type(method).__name__} became {float(loss)} at step {step}; "
                + _advice(method, step)
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
                    f"{type(method).__name__} made weights that are not finite (in {name}); "
                    + _advice(method, method.trainer.global_step)
                )

    def check_end(
        self,
        method: Method,
        steps: int | None,
        outdated_norm: bool = False,
        movable: float = 1.0,
    ) -> None:
        """Stop where a fit has seen no batch, or has moved no weight.

        It warns where half precision has rounded most changes away.

        Args:
            method: at the end of its fit.
            steps: optimizer steps of this fit; None where it has seen no batch.
            outdated_norm: whether batch-norm statistics were to be recomputed, and were not.
            movable: share of the weights that the method may move, in [0, 1].

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
            if self._largest_rate == 0:
                raise RunError(
                    f"{name} ran {steps} step{'s' * (steps > 1)}, in which the learning rate never "
                    "left 0, where its warm-up begins; train longer, or give the schedule a "
                    "shorter warm-up."
                )
            raise RunError(
                f"{name} ran {steps} steps and moved no weight; check learning rate, mask and data."
            )
        self._warn_of_rounding(method, movable)

    def _warn_of_rounding(self, method: Method, movable: float) -> None:
        """Warn with the share of weights in half precision that have moved, where it is small."""
        final = _half_sample(method)
        if final is None or self._initial_half is None or self._expects_no_change:
            return
        share = float((final != self._initial_half).float().mean()) / max(movable, 1e-12)
        if share < FEW:
            dtype = str(final.dtype).removeprefix("torch.")
            rank_zero_warn(
                f"only {min(share, 1):.1%} of the {dtype} weights that {type(method).__name__} "
                "trains have moved, because smaller changes are rounded away; take dtype: float32 "
                "and --trainer.precision bf16-mixed, or more steps or a larger learning rate."
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


@torch.no_grad()
def _half_sample(method: Method) -> Tensor | None:
    """Evenly chosen trainable weights in half precision, at most `SAMPLE`; None without any."""
    weights = [_local(weight) for _, weight in method.trainable()]
    weights = [weight for weight in weights if weight.dtype in HALF]
    if not weights:
        return None
    stride = -(-sum(weight.numel() for weight in weights) // SAMPLE)
    dtype = weights[0].dtype
    return torch.cat([weight.flatten()[::stride].to(dtype) for weight in weights])


def _advice(method: Method, step: int) -> str:
    """What to change where losses or weights are not finite."""
    if any(weight.dtype == torch.float16 for _, weight in method.backbone.named_parameters()):
        return (
            "float16 overflows above 65504; give the model dtype: bfloat16, or dtype: float32 with "
            "--trainer.precision bf16-mixed."
        )
    if step == 0:
        return (
            "no weight has moved yet, and weights and data are finite, so the loss itself "
            "overflows; check the method's temperatures and weights, and --trainer.precision."
        )
    return (
        "the last good checkpoint is kept; lower the learning rate or the weight of the ascent "
        "term."
    )


def nonfinite_input(batch: Any) -> str:
    """Name of the first tensor of a batch with values that are not finite; empty without any.

    Example:
        >>> nonfinite_input({"forget": {"image": torch.tensor([0.0, float("nan")])}})
        'forget/image'
        >>> nonfinite_input({"forget": {"label": torch.tensor([1])}})
        ''
    """
    return next((name for name, value in _tensors(batch) if not torch.isfinite(value).all()), "")


def _tensors(batch: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _tensors(value, f"{name}/{key}" if name else str(key))
    elif isinstance(batch, Tensor) and batch.is_floating_point():
        yield name, batch
