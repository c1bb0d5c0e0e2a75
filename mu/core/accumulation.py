"""Gradient accumulation in the windows of the data plan, in place of Lightning's fixed number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Trainer


class AccumulationWindows:
    """The windows of batches whose gradients make one optimizer step, in Lightning's fit loop.

    Lightning steps after every N batches of an epoch, whatever they are, and divides each loss by
    N. Here a step is made where the plan's window ends: at the end of a phase too, and each loss is
    divided by the number of batches of its window.
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._accumulate = 1
        self._begins = True
        self._ends = True

    def begin_batch(self, trainer: Trainer, batch: Any) -> None:
        """Read the batch's position in its window; a batch without one leaves all to Lightning."""
        window = batch.get("window") if isinstance(batch, Mapping) else None
        if window is None:
            return
        if self._trainer is None:
            self._attach(trainer)
        self._begins = window["position"] == 0
        self._ends = window["position"] + 1 == window["size"]
        trainer.accumulate_grad_batches = window["size"]

    def _attach(self, trainer: Trainer) -> None:
        """Let the windows decide when gradients are cleared and a step is made."""
        self._trainer = trainer
        self._accumulate = trainer.accumulate_grad_batches
        optimization: Any = trainer.fit_loop.epoch_loop.automatic_optimization
        clear = optimization._make_zero_grad_fn

        def clearing(batch_idx: int, optimizer: Any) -> Callable[[], None] | None:
            # Lightning clears at multiples of its number, and 0 is one
            return clear(0, optimizer) if self._begins else None

        optimization._make_zero_grad_fn = clearing
        loop: Any = trainer.fit_loop.epoch_loop
        loop._accumulated_batches_reached = lambda: self._ends

    def detach(self) -> None:
        """Give the fit loop back to Lightning, at the end of a fit."""
        if self._trainer is None:
            return
        loop: Any = self._trainer.fit_loop.epoch_loop
        vars(loop).pop("_accumulated_batches_reached", None)
        vars(loop.automatic_optimization).pop("_make_zero_grad_fn", None)
        self._trainer.accumulate_grad_batches = self._accumulate
        self._trainer = None
