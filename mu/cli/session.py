"""Progress of a command of LightningCLI, and plain sentences for the errors it may raise."""

from __future__ import annotations

import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from mu.cli import run_folder
from mu.utils.errors import InputError, RunError


@dataclass
class Session:
    """Progress of a command, kept outside LightningCLI, whose constructor does everything.

    Attributes:
        stage: `parse`, `build` or `run`.
        run: run folder.
        guard: removes what was written before the first step.
        trainer: trainer, once it is built.
        checkpoint: checkpoint that is loaded.
    """

    stage: str = "parse"
    run: Path | None = None
    guard: run_folder.Guard | None = None
    trainer: Trainer | None = None
    checkpoint: str | None = None

    @property
    def began(self) -> bool:
        """Whether a step was made; files written before that are not worth keeping."""
        return self.trainer is not None and self.trainer.global_step > 0

    @property
    def was_interrupted(self) -> bool:
        """Whether the trainer was stopped by the user."""
        return self.trainer is not None and self.trainer.interrupted

    def interruption(self) -> KeyboardInterrupt:
        """Exception of an interrupted command, with the command that continues it."""
        resumable = (
            self.guard is not None
            and self.run is not None
            and (self.run / run_folder.LAST).is_file()
        )
        return KeyboardInterrupt(
            f"continue it with mu fit --run {self.run} --resume" if resumable else ""
        )


def translated(error: Exception, session: Session) -> Exception:
    """The project's own error inside an exception, or a plain sentence for a library's.

    Args:
        error: what LightningCLI raised.
        session: progress of the command.

    Returns:
        InputError or RunError with a sentence; the exception itself where none is known.
    """
    # 1. jsonargparse wraps what a constructor raises
    root: BaseException = error
    while root.__cause__ is not None and not isinstance(root, InputError | RunError):
        root = root.__cause__
    if isinstance(root, InputError | RunError):
        return root
    # 2. errors of the machine
    message = " ".join(str(root).split()).rstrip(".!")
    if isinstance(root, torch.OutOfMemoryError):
        return RunError(
            "the device ran out of memory; lower --data.batch_size, or choose another "
            "--trainer.precision."
        )
    if re.search(r"Connection (closed|reset) by peer|NCCL (communicator|error)", message):
        return RunError(
            "another rank has failed; run again with --debug, which shows the traceback of every "
            "rank."
        )
    if "gpu backend" in message:
        return InputError("torch finds no GPU; use --trainer.accelerator cpu.")
    # 3. errors of the configuration and of the checkpoint
    from_constructor = session.stage == "build" and isinstance(
        root, ValueError | ModuleNotFoundError
    )
    if isinstance(root, MisconfigurationException) or from_constructor:
        return InputError(f"{message}.")
    if isinstance(root, ValueError | TypeError) and not session.began and _raised_in(root, "optim"):
        return InputError(f"the optimizer refuses its arguments: {message}; correct them.")
    unreadable = isinstance(root, pickle.UnpicklingError | KeyError | EOFError | zipfile.BadZipFile)
    if session.checkpoint and not session.began and unreadable:
        return InputError(
            f"{session.checkpoint} is not a checkpoint that mu fit wrote, or it is cut off."
        )
    return root if isinstance(root, Exception) and not isinstance(root, type(error)) else error


def _raised_in(error: BaseException, package: str) -> bool:
    """Whether an error was raised by the code of a package of torch."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return str(name).startswith(f"torch.{package}.")
