"""Run folders: names, recorded configuration, last checkpoint, removal of partial files."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mu.cli.config_files import read
from mu.utils.errors import InputError
from mu.utils.run_layout import CHECKPOINT as LAST
from mu.utils.run_layout import CONFIG

SHARED = "MU_RUN_FOLDER"
"""Environment variable with the run folder, from the first process to the ranks that it starts."""


def new(method: str, stage: str = "") -> Path:
    """New folder `runs/METHOD-TIME`.

    Raises:
        InputError: for several processes started from outside, which would each choose another.
    """
    if os.environ.get(SHARED):
        return Path(os.environ[SHARED])
    slurm = "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS") or 1) > 1
    nodes = {"MASTER_ADDR", "NODE_RANK"} <= os.environ.keys()
    if "TORCHELASTIC_RUN_ID" in os.environ or slurm or nodes:
        raise InputError(
            "several processes were started from outside, and each would choose another run "
            "folder; give one with --run."
        )
    stem = Path("runs") / "-".join(
        word for word in (method, stage, time.strftime("%Y%m%d-%H%M%S")) if word
    )
    folder = stem
    suffix = 2
    while folder.exists():
        folder = stem.with_name(f"{stem.name}-{suffix}")
        suffix += 1
    return folder


def of_checkpoint(path: str | Path) -> Path | None:
    """Run folder of a checkpoint; None where it lies outside one."""
    folder = Path(path).resolve().parent
    folder = folder.parent if folder.name == "checkpoints" else folder
    return Path(os.path.relpath(folder)) if (folder / CONFIG).is_file() else None


def of_model(model: str | Path) -> Path | None:
    """Run folder that a model names: the folder itself, or a checkpoint in it; None for others."""
    path = Path(model)
    if path.is_dir():
        # other programs have a config.yaml too
        is_run = (path / CONFIG).is_file() and (path / LAST).is_file()
        return path if is_run else None
    return of_checkpoint(path) if path.suffix == ".ckpt" and path.is_file() else None


def recorded_config(run: str | Path, training: bool = False) -> dict[str, Any]:
    """Configuration of a run for another command.

    Args:
        run: the run folder.
        training: whether the command trains, and needs the optimizer.

    Raises:
        InputError: for a missing run, a changed config.yaml, or a run that was made in Python with
            an object that no file holds.
    """
    from mu.cli.config_files import RECORDED
    from mu.core.run_paths import located
    from mu.utils.run_config import check_config

    run = Path(run)
    if not run.is_dir():
        raise InputError(f"there is no run folder {run}; give the folder that mu fit wrote.")
    if not (run / CONFIG).is_file():
        raise InputError(
            f"{run} is not a run folder of mu fit: it has no {CONFIG}; give the run's folder, or "
            "a configuration with -c."
        )
    config = {key: value for key, value in read(run / CONFIG).items() if key in RECORDED}
    check_config(run)
    _check_live(run, config, training)
    trainer = config.get("trainer") or {}
    config |= {key: located(config[key], run) for key in ("model", "data") if key in config}
    if trainer.get("callbacks"):
        config["trainer"] = {**trainer, "callbacks": located(trainer["callbacks"], run)}
    return config


def _check_live(run: Path, config: dict[str, Any], training: bool) -> None:
    """Refuse live objects; those of the optimizer and its schedule matter to a fit alone."""
    from mu.utils.spec import is_live

    arguments = (config.get("model") or {}).get("init_args") or {}
    for name in ("optimizer", "scheduler"):
        if not training and is_live(arguments.get(name)):
            del arguments[name]
    for name in _live_names({key: config.get(key) for key in ("model", "data")}):
        raise InputError(
            f"{run} was made in Python with an object as {name} that no file holds; measure it "
            f"there, with the module of mu.load({str(run)!r}, ...)."
        )


def _live_names(value: Any, name: str = "") -> Iterator[str]:
    """Dotted names of the arguments of a specification that are live objects."""
    from mu.utils.spec import is_live

    if is_live(value):
        yield name
    elif isinstance(value, dict):
        for key, entry in value.items():
            part = key if key != "init_args" else ""
            yield from _live_names(entry, ".".join(word for word in (name, part) if word))


def last_checkpoint(run: Path) -> Path:
    """Checkpoint from which a run is resumed and with which it is tested.

    Raises:
        InputError: for a run without one.
    """
    if not (run / LAST).is_file():
        raise InputError(
            f"{run} holds no {LAST}, so the run has not finished an epoch; fit it first with mu "
            f"fit --run {run}."
        )
    return run / LAST


def closing_line(run: Path | None) -> str:
    """Last line of a fit: its run folder, and how to measure it where it has a checkpoint."""
    if run is None or not run.is_dir():
        return "trial run finished; it wrote nothing, so there is nothing to measure."
    if not (run / LAST).is_file():
        return f"run folder: {run}  (without a checkpoint, so there is nothing to measure)"
    return f"run folder: {run}  (measure it: mu test --run {run} -c configs/suite/SUITE.yaml)"


def check_split(run: Path, command: str) -> None:
    """Check the split.json of a run that is resumed or evaluated.

    Args:
        run: the run folder.
        command: `fit` or a command that evaluates; a test writes a missing file anew.

    Raises:
        InputError: for a file that was changed or cut off, or that a tested run lacks.
    """
    from mu.data.split import Split

    file = run / "split.json"
    if file.exists() or file.is_symlink():
        try:
            Split.load(file)
        except InputError as error:
            reason = str(error).rstrip(".")
            raise InputError(f"{reason}; delete it, and mu test writes it anew.") from error
    elif (run / "results.json").is_file():
        if command == "fit":
            raise InputError(
                f"{file} is missing, so nothing shows that the run goes on with the samples of "
                f"its results; write it anew with mu test --run {run}."
            )
        if command == "test":
            print(f"mu: warning: {file} is missing; it is written anew.", file=sys.stderr)


class Guard:
    """Removal of the files of a fit that failed before its first step.

    Args:
        run: run folder, before anything is written.
        overwrite: whether the run that is there is set aside, and dropped at the first step.
    """

    WRITTEN = (
        CONFIG,
        "base",
        "checkpoints",
        "curves.json",
        "fit.json",
        "lightning_logs",
        "logs",
        "split.json",
    )
    """Entries that a fit may have written by then; nothing else in the folder is touched."""
    MEASURED = ("results.json", "outputs.safetensors", "media", "predictions*.safetensors")
    """Further entries of a run that is begun anew, written by its tests."""
    ASIDE = ".overwritten"
    """Folder of the entries of a run that is begun anew, until the first step."""

    def __init__(self, run: Path, overwrite: bool = False) -> None:
        from mu.utils.files import remove_stale

        self.run = run
        for folder in (run, run / LAST.parent):
            remove_stale(folder)
        self._restore()  # of a process that was killed
        if overwrite:
            self._set_aside()
        self._missing_folders = [folder for folder in (run, *run.parents) if not folder.exists()]
        self._entries_before = set(self._entries())

    def _set_aside(self) -> None:
        for pattern in (*self.WRITTEN, *self.MEASURED):
            for entry in self.run.glob(pattern):
                (self.run / self.ASIDE).mkdir(exist_ok=True)
                entry.rename(self.run / self.ASIDE / entry.name)

    def _restore(self) -> None:
        """Put a run that was set aside back, unless a newer one has begun."""
        aside = self.run / self.ASIDE
        if not aside.is_dir():
            return
        if not (self.run / CONFIG).exists():
            for entry in aside.iterdir():
                if not (self.run / entry.name).exists():
                    entry.rename(self.run / entry.name)
        shutil.rmtree(aside)

    def _entries(self) -> list[Path]:
        """Entries that a fit may have written, and those of its folders."""
        written = [self.run / name for name in self.WRITTEN if (self.run / name).exists()]
        return [
            *written,
            *(entry for folder in written if folder.is_dir() for entry in folder.iterdir()),
        ]

    def undo(self) -> None:
        """Remove new entries and new folders that are empty, and put back what was set aside."""
        for entry in set(self._entries()) - self._entries_before:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        self._restore()
        for folder in self._missing_folders:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
