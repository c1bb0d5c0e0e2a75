"""Checks of the Trainer's arguments before anything is built."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mu.config.argument_types import argument_names
from mu.config.classes import did_you_mean
from mu.core.trainer_checks import default_limits
from mu.utils.errors import InputError

_STEPS = ("max_epochs", "max_steps", "limit_train_batches")
_SMALLEST = {
    "gradient_clip_val": 0,
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
}
_CLUSTER = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "MASTER_ADDR", "LSB_JOBID")
"""Variables of launchers that start processes on several nodes."""


def check_fit(trainer: Mapping[str, Any], prefix: str = "--trainer.") -> None:
    """Refuse arguments with which a fit would train nothing, wait for ever, or fork without end.

    Args:
        trainer: arguments of the Trainer.
        prefix: of their names in messages.

    Raises:
        InputError: names the argument and a value that works.
    """
    for name in _STEPS:
        value = trainer.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
            raise InputError(
                f"{prefix}{name} is {value}, so that nothing would be trained; give at least 1, "
                "or leave it out."
            )
    for name, smallest in _SMALLEST.items():
        value = trainer.get(name)
        if isinstance(value, int | float) and value < smallest:
            raise InputError(f"{prefix}{name} is {value}; it should be at least {smallest}.")
    if _is_no_time(trainer.get("max_time")):
        raise InputError(
            f"{prefix}max_time is {trainer['max_time']}, so that nothing would be trained; give "
            "DD:HH:MM:SS, for example 00:00:30:00, or leave it out."
        )
    check_processes(trainer, prefix)


def missing_length(trainer: Mapping[str, Any], method: type) -> dict[str, int]:
    """Default length of a method's fit, where the trainer is given none.

    Args:
        trainer: arguments of the Trainer.
        method: class of the method.

    Returns:
        `max_epochs`, or `max_steps` too; empty where the trainer ends by its own arguments. Without
        either, Lightning makes 1,000 epochs.
    """
    callbacks = trainer.get("callbacks") or []
    paths = [_class_path(callback) for callback in callbacks if callback]
    ends = (
        trainer.get("max_epochs") is not None
        or trainer.get("max_steps") not in (None, -1)
        or trainer.get("max_time") is not None
        or bool(trainer.get("fast_dev_run"))
        or any(path.rpartition(".")[2] == "Timer" for path in paths)
    )
    return {} if ends else default_limits(method)


def _class_path(callback: Any) -> str:
    """Class path of a callback's specification, or of a callback."""
    if isinstance(callback, Mapping):
        return str(callback.get("class_path", ""))
    return str(getattr(callback, "class_path", type(callback).__name__))


def check_names(trainer: Mapping[str, Any], prefix: str) -> None:
    """Refuse arguments that Lightning's Trainer does not take.

    Raises:
        InputError: names the first one.
    """
    from lightning.pytorch import Trainer

    names = argument_names(Trainer)
    for name in trainer:
        if name not in names:
            hint = did_you_mean(str(name), names, "see Lightning's Trainer for its arguments.")
            raise InputError(f"{prefix}{name} is no argument of the Trainer; {hint}")


def check_processes(trainer: Mapping[str, Any], prefix: str = "--trainer.") -> None:
    """Refuse more nodes than were started, and more processes than the machine could run.

    Raises:
        InputError: names the argument and a value that works.
    """
    nodes = trainer.get("num_nodes")
    if isinstance(nodes, int) and nodes > 1 and not any(name in os.environ for name in _CLUSTER):
        raise InputError(
            f"{prefix}num_nodes is {nodes}, but no launcher has started other nodes, for which the "
            "run would wait for ever; start mu on each node with torchrun or SLURM, or leave it "
            "out."
        )
    devices = trainer.get("devices")
    if isinstance(devices, str):
        if not re.fullmatch(r"auto|-?\d+|\d+(,\s*\d+)+,?|\d+,", devices):
            raise InputError(
                f"{prefix}devices is {devices!r}; it should be auto, a number of devices, or "
                "their numbers separated by commas."
            )
        devices = int(devices) if devices.lstrip("-").isdigit() else None
    if isinstance(devices, int) and devices < 1 and devices != -1:
        raise InputError(f"{prefix}devices is {devices}; it should be at least 1, or -1 for all.")
    largest = max(16, os.cpu_count() or 1)
    if isinstance(devices, int) and not isinstance(devices, bool) and devices > largest:
        raise InputError(
            f"{prefix}devices is {devices}, and each is a process; give at most {largest} on this "
            "machine."
        )


def _is_no_time(value: Any) -> bool:
    """Whether a duration of Lightning's (text, mapping, timedelta) is empty."""
    if isinstance(value, timedelta):
        return value <= timedelta()
    if isinstance(value, Mapping):
        return not any(value.values())
    if isinstance(value, str):
        return not value.strip("0: ")
    return isinstance(value, int | float) and not isinstance(value, bool) and value == 0
