"""Index of a study, `study.json`: the run folders that its report reads, and the runs it lacks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mu.bench.claims import claim
from mu.bench.events import Outcome
from mu.bench.study import Job, Study
from mu.utils.errors import InputError
from mu.utils.files import read_json, write_json

FILE = "study.json"
NOT_RUN = "it has not run yet"
_SECONDS = 2.0
"""Shortest time between two writes while runs end."""


class StudyIndex:
    """Index of one call of `mu bench`.

    Runs of earlier calls with other methods or seeds stay in the file. A run that fails keeps the
    entry of an earlier one under other settings, as long as the original and the oracle that it is
    compared with are the same; so a failed call leaves the page as good as it was.

    Args:
        study: the study.
        command: command line, for the report.
        jobs: the jobs of this call.
    """

    def __init__(self, study: Study, command: str, jobs: Iterable[Job]) -> None:
        self.study = study
        self.command = command
        self.jobs = list(jobs)
        self.file = study.output / FILE
        self.outcomes: dict[Job, Outcome] = {}
        self._written = 0.0

    def add(self, outcome: Outcome) -> None:
        """Take in an outcome, and write the file unless it was written a moment ago."""
        self.outcomes[outcome.job] = outcome
        if time.monotonic() - self._written > _SECONDS:
            self.write()

    def write(self) -> None:
        """Merge this call's runs into the file; a second call on the same study waits."""
        lock = claim(self.study.output, "study-index", wait=True)
        try:
            earlier = self._earlier()
            runs = self._runs(earlier["runs"])
            write_json(self.file, self._content(runs, earlier))
        finally:
            if lock is not None:
                lock.release()
        self._written = time.monotonic()

    def _earlier(self) -> dict[str, Any]:
        """Content of the file; empty where there is none.

        Raises:
            InputError: when it is no index.
        """
        if not self.file.is_file():
            return {"runs": {}, "missing": {}}
        content = read_json(self.file)
        if not isinstance(content, Mapping) or not all(
            isinstance(content.get(key), Mapping) for key in ("runs", "missing")
        ):
            raise InputError(
                f"{self.file} is not the index of a study of this version of mu; give another "
                "folder with --output, or remove the file."
            )
        return dict(content)

    def _runs(self, earlier: Mapping[str, str]) -> dict[str, str]:
        """Folders by run: of this call, and of earlier calls as far as they still count."""
        runs = dict(earlier)
        for job, outcome in self.outcomes.items():
            if job.role != "train" and outcome.folder is not None:
                name = run_name(job)
                runs.pop(name, None)  # behind the others, in the order in which they ended
                runs[name] = _relative(outcome.folder, self.study.output)
        for job, outcome in self.outcomes.items():
            name = run_name(job)
            if outcome.folder is None and name in runs and self._changed(job, earlier, runs):
                del runs[name]
        return runs

    @staticmethod
    def _changed(job: Job, earlier: Mapping[str, str], runs: Mapping[str, str]) -> bool:
        """Whether the original or the oracle of a job is another than before this call."""
        names = [reference_name(job, method) for method in ("original", "oracle")]
        return any(earlier.get(name) != runs.get(name) for name in names)

    def _missing(self, runs: Mapping[str, str], earlier: Mapping[str, str]) -> dict[str, str]:
        """Reason by run that the page lacks, or shows from before."""
        planned = {run_name(job): job for job in self.jobs}
        # of other calls: what still belongs to the study
        missing = {
            name: reason
            for name, reason in earlier.items()
            if name not in planned and self._has(name)
        }
        for name, job in planned.items():
            outcome = self.outcomes.get(job)
            if outcome is not None and outcome.folder is None:
                missing[name] = outcome.reason
            elif outcome is None and job.role != "train" and name not in runs:
                missing[name] = NOT_RUN
        return missing

    def _has(self, name: str) -> bool:
        task, method, _ = name.split("/", 2)
        return task in self.study.tasks and (
            method in self.study.rows or method == run_method("train", "")
        )

    def _content(self, runs: Mapping[str, str], earlier: Mapping[str, Any]) -> dict[str, Any]:
        study = self.study
        skipped = {
            f"{task}/{name}": reason
            for task in study.tasks
            for name in study.methods
            if (reason := study.method_spec(task, name).get("skip"))
        }
        return {
            "name": study.name,
            "title": study.title,
            "command": self.command,
            "tasks": list(study.tasks),
            "runs": dict(runs),
            "missing": self._missing(runs, earlier["missing"]),
            "methods": study.rows,
            "skipped": skipped,
        }


def run_method(role: str, method: str) -> str:
    """Name of a job's method in the index."""
    return "training the original" if role == "train" else method


def run_name(job: Job) -> str:
    """Name of a job in the index: task, method and seeds.

    >>> from mu.bench.study import Seeds
    >>> run_name(Job("method", "class", "SSD", Seeds(1, 1, 1)))
    'class/SSD/seed1'
    """
    return f"{job.task}/{run_method(job.role, job.method)}/{job.seeds.label}"


def reference_name(job: Job, method: str) -> str:
    """Name of the original or oracle of a job's task and seeds."""
    return f"{job.task}/{method}/{job.seeds.label}"


def _relative(folder: Path, output: Path) -> str:
    return folder.relative_to(output).as_posix()
