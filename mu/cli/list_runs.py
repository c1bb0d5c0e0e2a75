"""`mu list runs`: run folders with their progress and the results of the weights they hold."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mu.cli.config_files import read, section
from mu.utils.errors import InputError
from mu.utils.run_layout import CHECKPOINT, CONFIG, RESULTS

_METRICS = 6
"""Most metrics of a row; `mu report` shows all."""
_NO_RUNS = ("base", "checkpoints", "logs", "lightning_logs", "media")
"""Folders of a run that hold no runs."""
TITLES = ["run", "method", "task", "state", "results"]


def rows_of(folder: Path) -> list[list[str]]:
    """Row of each run below a folder: name, method, task, state, results.

    Results of other weights than those of the run are named on stderr, and not in the table.

    Args:
        folder: a run folder, or one that holds run folders.

    Raises:
        InputError: there is no such folder, or it holds no run.
    """
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}; name one that holds runs: mu list runs DIR."
        )
    rows = []
    for run in _runs(folder):
        name = run.relative_to(folder).as_posix() if run != folder else str(folder)
        try:
            rows.append([name, *_row(run, name)])
        except InputError as error:
            rows.append([name, "", "", "unusable", ""])
            print(f"mu: {name}: {error}", file=sys.stderr)
    if not rows:
        raise InputError(f"{folder} holds no run; mu fit --run {folder}/NAME makes one.")
    return rows


def _runs(folder: Path) -> Iterator[Path]:
    if (folder / CONFIG).is_file() or (folder / RESULTS).is_file():
        yield folder
        return
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith(".") and child.name not in _NO_RUNS:
            yield from _runs(child)


def _row(run: Path, name: str) -> list[str]:
    from mu.core.run_files import CHANGED, results_fault
    from mu.metrics.run_results import RunResults, stale_results
    from mu.utils.run_config import check_config

    # 1. method and task
    check_config(run)
    config = read(run / CONFIG) if (run / CONFIG).is_file() else {}
    method, task = (
        str(section(config, key).get("class_path", "")).rpartition(".")[2]
        for key in ("model", "data")
    )
    # 2. results of its weights
    entries = RunResults.load_all(run) if (run / RESULTS).is_file() else []
    current = RunResults.current(entries, run)
    fault = results_fault(run, current.hashes) if current is not None else None
    if fault is not None and current is not None:
        print(f"mu: {name}: its results are left out, because {fault}.", file=sys.stderr)
    elif entries and current is None:
        print(f"mu: {name}: its results are left out, because {CHANGED}.", file=sys.stderr)
    elif current is not None:
        for model, metrics in stale_results(entries, current).items():
            print(f"mu: {name}: {metrics} of other weights ({model}) left out.", file=sys.stderr)
    record = current if fault is None else None
    if record is not None:
        method, task = record.method, record.task
    return [method, task, _state(run), _metrics(record)]


def _state(run: Path) -> str:
    from mu.core.run_start import finished_fit

    progress = finished_fit(run)
    if progress is None:
        return "cut off" if (run / CHECKPOINT).exists() else "no checkpoint"
    if not progress["steps"]:
        return "not trained"
    return f"epoch {progress['epochs']}, step {progress['steps']}"


def _metrics(record: Any) -> str:
    """First metrics with their values, in the order of the suites' headlines."""
    if record is None:
        return ""
    values = {result.metric: result.value for result in record.results}
    names = [name for name in record.presentation.headline if name in values]
    names += [name for name in values if name not in names and "/" not in name]
    texts = [
        f"{name} {values[name]:.4g}" if values[name] is not None else f"{name} undefined"
        for name in names
    ]
    further = len(texts) - _METRICS
    return ", ".join(texts[:_METRICS]) + (f" and {further} more" if further > 0 else "")
