"""The run folder of `mu fit` and of what follows it: its name, its contents, and that nothing
half-written is left in it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu.cli.config_files import read
from mu.utils.errors import InputError

CONFIG = "config.yaml"
LAST = Path("checkpoints") / "last.ckpt"
SHARED = "MU_RUN_FOLDER"
"""Environment variable by which the first process tells the ranks that it starts which folder it
has chosen.
"""
_PLACE = ("default_root_dir", "enable_progress_bar", "enable_model_summary", "logger")
"""Trainer arguments that say where and how it is shown, not what is run."""


def new(method: str, stage: str = "") -> Path:
    """A folder that no run has yet: `runs/METHOD-TIME`.

    Raises:
        InputError: when several processes were started from outside, which would each choose
            another.
    """
    if os.environ.get(SHARED):
        return Path(os.environ[SHARED])
    slurm = "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS") or 1) > 1
    if "TORCHELASTIC_RUN_ID" in os.environ or slurm:
        raise InputError(
            "several processes were started from outside, so each would choose a run folder of "
            "its own; give one with --run."
        )
    stem = Path("runs") / "-".join(
        word for word in (method, stage, time.strftime("%Y%m%d-%H%M%S")) if word
    )
    folder = stem
    number = 2
    while folder.exists():
        folder = stem.with_name(f"{stem.name}-{number}")
        number = number + 1
    return folder


def of_checkpoint(path: str | Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it does."""
    folder = Path(path).resolve().parent
    folder = folder.parent if folder.name == "checkpoints" else folder
    return Path(os.path.relpath(folder)) if (folder / CONFIG).is_file() else None


def recorded_config(run: str | Path) -> dict[str, Any]:
    """What the run's config.yaml says to another command.

    Raises:
        InputError: when there is no such run.
    """
    from mu.cli.config_files import RECORDED

    run = Path(run)
    if not run.is_dir():
        raise InputError(f"there is no run folder {run}; give the folder that mu fit wrote.")
    if not (run / CONFIG).is_file():
        raise InputError(
            f"{run} is not a run folder of mu fit: it has no {CONFIG}; give the run's folder, or "
            "a configuration with -c."
        )
    return {key: value for key, value in read(run / CONFIG).items() if key in RECORDED}


def last_checkpoint(run: Path) -> Path:
    """The checkpoint that a run is resumed from and tested with.

    Raises:
        InputError: when the run has none.
    """
    if not (run / LAST).is_file():
        raise InputError(
            f"{run} holds no {LAST}, so the run has not finished an epoch; fit it first with mu "
            f"fit --run {run}."
        )
    return run / LAST


def refuse_other_run(run: Path, config: Mapping[str, Any]) -> None:
    """Refuse to write into a folder that holds a run of another configuration.

    Raises:
        InputError: names the folder and what differs.
    """
    if not run.exists():
        return
    if not run.is_dir():
        raise InputError(f"{run} is a file, not a run folder; give another --run.")
    cure = "give another --run, resume it with --resume, or delete it."
    if (run / CONFIG).is_file():
        different = _first_difference(_comparable(read(run / CONFIG)), _comparable(config))
        if different:
            raise InputError(f"{run} holds another run ({different}); {cure}")
    elif (run / "results.json").exists() or any(run.glob("checkpoints/*.ckpt")):
        raise InputError(f"{run} holds another run, which has no {CONFIG} to compare with; {cure}")


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        key: value for key, value in config.items() if key in ("seed_everything", "model", "data")
    }
    trainer = {
        key: value for key, value in (config.get("trainer") or {}).items() if key not in _PLACE
    }
    return {**kept, "trainer": trainer}


def _first_difference(old: Any, new: Any, key: str = "") -> str:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            part = name if name != "init_args" else ""
            found = _first_difference(
                old.get(name), new.get(name), ".".join(word for word in (key, part) if word)
            )
            if found:
                return found
        return ""
    return "" if old == new else f"its {key} is {_short(old)}, not {_short(new)}"


def _short(value: Any) -> str:
    shown = str(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


class Guard:
    """Takes back what a fit has written when it fails before its first step.

    Args:
        run: the run folder, as it is before anything is written.
    """

    WRITTEN = (CONFIG, "checkpoints", "curves.json", "lightning_logs", "logs", "split.json")
    """What a fit may have written by then; in a folder that was there before, nothing else is
    touched.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._absent = [folder for folder in (run, *run.parents) if not folder.exists()]
        self._there = set(self._entries())

    def _entries(self) -> list[Path]:
        """What a fit may have written, and what stands in its folders."""
        written = [self.run / name for name in self.WRITTEN if (self.run / name).exists()]
        return [
            *written,
            *(entry for folder in written if folder.is_dir() for entry in folder.iterdir()),
        ]

    def undo(self) -> None:
        """Remove it, and the folders that were made for it."""
        for entry in set(self._entries()) - self._there:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        for folder in self._absent:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
