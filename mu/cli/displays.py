"""What a fit shows while it runs: the size of the model, and its progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary, RichProgressBar
from lightning.pytorch.callbacks.progress.progress_bar import ProgressBar

from mu.core.module import UnlearningModule

_INTERVAL = 10.0
"""Seconds between two lines of progress."""


def default_displays(trainer: Any, callbacks: Iterable[Callback]) -> list[Callback]:
    """Displays of a command that has none of its own.

    Args:
        trainer: arguments of the Trainer, as attributes.
        callbacks: callbacks of the configuration.
    """
    callbacks = list(callbacks)
    displays: list[Callback] = []
    if trainer.barebones:
        return displays
    if trainer.enable_model_summary is not False and not _has(callbacks, ModelSummary):
        displays.append(ModelSize())
    if trainer.enable_progress_bar is not False and not _has(callbacks, ProgressBar):
        displays.append(TerminalProgress() if sys.stdout.isatty() else LineProgress())
    return displays


def _has(callbacks: Iterable[Callback], display: type) -> bool:
    return any(isinstance(callback, display) for callback in callbacks)


class ModelSize(ModelSummary):
    """One line with the size of the model that a fit trains.

    Lightning's table has one row for the backbone, and floating-point operations that are 0 before
    the first step.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line on rank zero."""
        if trainer.is_global_zero and isinstance(pl_module, UnlearningModule):
            print(_size(pl_module), file=sys.stderr)


def _size(module: UnlearningModule) -> str:
    """Class, number of weights and number of trained weights of a method's backbone."""
    weights = sum(weight.numel() for weight in module.backbone.parameters())
    trained = sum(weight.numel() for _, weight in module.trainable())
    share = "all trained" if trained == weights else f"{trained:,} trained"
    names = f"{type(module).__name__}: {type(module.backbone).__name__}"
    return f"{names}, {weights:,} weights, {share}"


def epoch_of(trainer: Trainer) -> str:
    """Epoch of a fit, counted from 1, with the last one where it has one: `Epoch 3/10`."""
    last = trainer.max_epochs
    return f"Epoch {trainer.current_epoch + 1}" + (f"/{last}" if last and last > 0 else "")


def bar_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of a progress bar without the version number of the logger's folder."""
    return {name: value for name, value in metrics.items() if name != "v_num"}


class TerminalProgress(RichProgressBar):
    """Lightning's progress bar, with epochs counted from 1 and no end where there is none."""

    def _get_train_description(self, current_epoch: int) -> str:
        return epoch_of(self.trainer).ljust(len(self.validation_description))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        return bar_metrics(super().get_metrics(trainer, pl_module))


class LineProgress(ProgressBar):
    """Progress of a fit as lines on standard error, one in ten seconds, for files and pipes."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._last = time.monotonic()

    def disable(self) -> None:
        """Print nothing, as on all ranks but one."""
        self._enabled = False

    def enable(self) -> None:
        """Print lines again."""
        self._enabled = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._last = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line when the last one is old enough."""
        if self._is_due():
            values = bar_metrics(self.get_metrics(trainer, pl_module))
            metrics = "".join(f", {name} {float(value):.4g}" for name, value in values.items())
            batches = f"batch {batch_idx + 1}/{self.total_train_batches}"
            steps = f"step {trainer.global_step}"
            if trainer.max_steps > 0:
                steps += f"/{trainer.max_steps}"
            print(f"{epoch_of(trainer)}, {batches}, {steps}{metrics}", file=sys.stderr)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print a line when the last one is old enough."""
        self._print_batch(self.test_description, batch_idx)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print a line when the last one is old enough."""
        self._print_batch(self.predict_description, batch_idx)

    def _print_batch(self, description: str, batch_idx: int) -> None:
        if self._is_due():
            print(f"{description}, batch {batch_idx + 1}", file=sys.stderr)

    def _is_due(self) -> bool:
        """Whether a line may be printed now; it then counts as printed."""
        now = time.monotonic()
        if not self._enabled or now - self._last < _INTERVAL:
            return False
        self._last = now
        return True
