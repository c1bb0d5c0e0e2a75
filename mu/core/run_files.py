"""Agreement of the files of a run folder: results with checkpoint and split."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mu.data.split import Split
from mu.utils.checksums import checkpoint_digest, fits_checksums
from mu.utils.errors import InputError
from mu.utils.run_config import SETTINGS, check_belongs, check_config, config_line
from mu.utils.run_layout import CHECKPOINT, CONFIG, SPLIT
from mu.utils.text_files import file_fault

CHANGED = "its weights have changed since the test"
"""Fault of results about other weights than those of the run."""


def check_checkpoint(path: Path | str) -> None:
    """Refuse a file that is no whole checkpoint of a run.

    Args:
        path: a checkpoint file, or the folder of a sharded one, which is not looked at.

    Raises:
        InputError: names the file, and the newest whole checkpoint beside it.
    """
    if Path(path).is_dir():
        return
    fault = checkpoint_fault(path)
    if fault is None:
        return
    candidates = sorted(Path(path).parent.glob("*.ckpt"), key=lambda file: -file.stat().st_mtime)
    newest = next(
        (file for file in candidates if file.is_file() and not checkpoint_fault(file)), None
    )
    cure = f"the newest whole one is {newest}" if newest else "fit the run again"
    raise InputError(f"{path} {fault}; {cure}.")


def checkpoint_fault(path: Path | str) -> str | None:
    """What is wrong with a checkpoint file, as the end of a sentence; None for a whole one."""
    fault = file_fault(path)
    if fault is not None:
        return fault
    unreadable = "is not a checkpoint that mu fit wrote, or it is cut off"
    if not zipfile.is_zipfile(path):
        return unreadable
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # torch answers damaged bytes with errors of any kind
        return unreadable
    if not isinstance(content, dict) or not isinstance(content.get("mu"), dict):
        return "is not a checkpoint that mu fit wrote: it has no record of a run"
    state = content.get("state_dict")
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        return "is not a checkpoint that mu fit wrote: it has no weights"
    if not fits_checksums(path):
        return "was changed after it was written: its checksums do not fit its contents"
    return None


def check_run(run: Path | str, checkpoint: Path | str = "") -> None:
    """Refuse a run folder whose files were changed, cut off, or come from different runs.

    Args:
        run: the run folder.
        checkpoint: the checkpoint that is used, checked by `check_checkpoint`; the last one when
            empty.

    Raises:
        InputError: names the file, or the two that do not belong together.
    """
    run = Path(run)
    file = Path(checkpoint) if checkpoint else run / CHECKPOINT
    check_config(run)
    if (run / SPLIT).exists():
        Split.load(run / SPLIT)
    if file.is_file():
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        check_belongs(run, file, content["mu"])


def results_fault(folder: Path, hashes: Mapping[str, str]) -> str | None:
    """Why the results of a run do not belong to the other files of its folder.

    Args:
        folder: the run folder.
        hashes: of its results.

    Returns:
        A clause (`its weights have changed since the test`); None where all agree. Files that are
        absent agree.
    """
    tested = hashes.get("checkpoint")
    present = checkpoint_digest(folder / CHECKPOINT)
    if tested and present and tested != present:
        return CHANGED
    try:
        check_config(folder)
    except InputError as error:
        return str(error).partition(";")[0].rstrip(".")
    settings = config_line(folder, SETTINGS)
    if hashes.get("config") and settings and hashes["config"] != settings:
        return f"its {CONFIG} is of another run than its results"
    if (folder / SPLIT).exists():
        try:
            split = Split.load(folder / SPLIT)
        except InputError as error:
            return str(error).rstrip(".")
        if hashes.get("split") not in ("", None, split.hash):
            return f"its {SPLIT} is of another split than its results"
    return None


def lacks_split(folder: Path, hashes: Mapping[str, str]) -> bool:
    """Whether a run was measured on a split whose file is missing from its folder."""
    return bool(hashes.get("split")) and not (folder / SPLIT).exists()


def check_results(folder: Path | str, hashes: Mapping[str, str]) -> None:
    """Refuse results of other weights or of another split than those of the folder.

    Args:
        folder: the run folder.
        hashes: of its results.

    Raises:
        InputError: names the folder and the fault.
    """
    fault = results_fault(Path(folder), hashes)
    if fault is not None:
        raise InputError(
            f"the results in {folder} do not belong to the run: {fault}; measure it again with mu "
            f"test --run {folder}."
        )
