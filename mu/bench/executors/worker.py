"""What a worker of any executor does: find its Bench again, and run one job of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from mu.bench.events import Outcome
from mu.bench.study import Job, Study

_benches: dict[str, Any] = {}
"""The Bench of this process by its assignment; its data and parsers serve every job."""


@dataclass(frozen=True)
class Assignment:
    """Plain data from which any process builds the Bench of a study.

    Attributes:
        bench: class of the Bench.
        study: the study.
        debug: let errors through.
        threads: number of torch's CPU threads where the study sets none; None leaves it.
        directory: working directory, to which paths in the study are relative.
        path: `sys.path`, by which classes in the user's own files are found.
        token: name of the assignment.
    """

    bench: type
    study: Study
    debug: bool
    threads: int | None = None
    directory: str = field(default_factory=os.getcwd)
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))
    token: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def to(cls, bench: Any, threads: int | None = None) -> Assignment:
        """Assignment that builds a Bench like another one."""
        _ = bench.study.weights  # hashed once, and sent along
        return cls(type(bench), bench.study, bench.debug, threads)

    def build(self) -> Any:
        """The Bench in this process; built once, from the directory of the assignment."""
        if self.token not in _benches:
            if os.path.isdir(self.directory):
                os.chdir(self.directory)
            sys.path += [folder for folder in self.path if folder not in sys.path]
            import torch

            from mu.config.plugins import load

            load()
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            _benches.clear()
            _benches[self.token] = self.bench(self.study, debug=self.debug)
        return _benches[self.token]


def run_job(
    assignment: Assignment, job: Job, started: Callable[[], None], wait: bool = False
) -> Outcome | None:
    """Outcome of a job; None where another process holds its run.

    Args:
        assignment: the study.
        job: one of its jobs.
        started: called when there is something to train or to measure.
        wait: wait while another process holds the run.
    """
    work = assignment.build().begin(job, wait)
    if callable(work):
        started()
        work = work()
    assert work is None or isinstance(work, Outcome)
    return work
