"""Checks of a trainer's settings and callbacks before a fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Checkpoint,
    EarlyStopping,
    LearningRateFinder,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.utilities import rank_zero_warn

from mu.core.protocols import Method
from mu.utils.errors import InputError

_LIGHTNING_EPOCHS = 1000
"""Epochs of a Trainer without `max_epochs`, `max_steps` and `max_time`."""


def check_trainer(method: Method, has_mask: bool) -> None:
    """Refuse settings and callbacks that cannot work with a fit's method and task.

    Args:
        method: before its fit, with its trainer.
        has_mask: whether only some weights may move.

    Raises:
        InputError: names the setting or the callback.
    """
    trainer: Any = method.trainer
    name = type(method).__name__
    _warn_of_unlimited_fit(method)
    synchronised = getattr(trainer.strategy, "_layer_sync", None) is not None
    if synchronised and trainer.world_size > 1 and trainer.strategy.root_device.type == "cpu":
        raise InputError(
            "trainer.sync_batchnorm works on GPUs alone; leave it out, and give the method norm: "
            "eval where ranks should give the weights of one process."
        )
    clip = trainer.gradient_clip_val
    if clip is not None and not clip >= 0:
        raise InputError(
            f"trainer.gradient_clip_val is {clip}; a gradient is clipped to a norm or value of at "
            "least 0."
        )
    for callback in trainer.callbacks:
        class_name = type(callback).__name__
        if isinstance(callback, BatchSizeFinder | LearningRateFinder):
            setting = (
                "data.batch_size" if isinstance(callback, BatchSizeFinder) else "the optimizer's lr"
            )
            raise InputError(
                f"{class_name} tries out steps before the fit, which would move the weights that "
                f"{name} begins from; leave it out and set {setting}, or search for it with mu "
                "bench."
            )
        if has_mask and isinstance(callback, WeightAveraging) and callback._use_buffers:
            raise InputError(
                f"{class_name} would average the mask of {name}; give it use_buffers: false."
            )
        if isinstance(callback, EarlyStopping | Checkpoint):
            check_curve(class_name, getattr(callback, "monitor", None), method)


def _warn_of_unlimited_fit(method: Method) -> None:
    """Warn of the 1,000 epochs that Lightning makes where a trainer has no limit."""
    trainer: Any = method.trainer
    unlimited = trainer.max_epochs == _LIGHTNING_EPOCHS and trainer.max_steps == -1
    timed = any(isinstance(callback, Timer) for callback in trainer.callbacks)
    if unlimited and not timed and not method.ends_itself:
        arguments = ", ".join(f"{name}={value}" for name, value in default_limits(method).items())
        rank_zero_warn(
            f"the trainer makes {_LIGHTNING_EPOCHS} epochs, which is Lightning's default without "
            f"max_epochs and max_steps; that of {type(method).__name__} is "
            f"{default_length(method)}: Trainer({arguments})."
        )


def default_limits(method: Any) -> dict[str, int]:
    """Arguments of a trainer that fits as long as the default of a method, or of its class."""
    if method.default_steps is None:
        return {"max_epochs": method.default_epochs}
    return {"max_steps": method.default_steps, "max_epochs": -1}


def default_length(method: Any) -> str:
    """Default length of the fit of a method, or of its class, in words: `10 epochs`."""
    steps, epochs = method.default_steps, method.default_epochs
    if steps is not None:
        return f"{steps} step{'s' * (steps != 1)}"
    return f"{epochs} epoch{'s' * (epochs != 1)}"


def check_curve(class_name: str, monitor: str | None, method: Method) -> None:
    """Refuse the monitoring of a curve that the fit does not compute.

    Args:
        class_name: of the callback.
        monitor: name of a metric, `SPLIT/SCORE` for a curve; None monitors nothing.
        method: before its fit.

    Raises:
        InputError: names the curve.
    """
    task = method.task
    split, slash, _ = (monitor or "").partition("/")
    if task is None or not slash or split not in (*task.split.parts, "validation"):
        return
    trainer: Any = method.trainer
    computed = task.curves if trainer.limit_val_batches else []
    if split not in computed:
        raise InputError(
            f"{class_name} monitors {monitor}, but the fit computes no curve of {split}; add it "
            "with data.curves, or monitor train/loss."
        )


def check_monitored(callbacks: Iterable[Any], metrics: Iterable[str]) -> None:
    """Refuse the monitoring of a metric that the first epoch has not logged.

    Args:
        callbacks: callbacks of the trainer.
        metrics: names of the metrics logged until the end of an epoch.

    Raises:
        InputError: names the metric, and those there are.
    """
    names = [*metrics, "epoch", "step"]
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if isinstance(callback, EarlyStopping | Checkpoint) and monitor not in (None, *names):
            raise InputError(
                f"{type(callback).__name__} monitors {monitor!r}, which the fit does not log; it "
                f"logs {', '.join(names[:-2])}."
            )
