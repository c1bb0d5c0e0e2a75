"""Executor in this process: one job after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from mu.bench.events import Outcome
from mu.bench.executors.base import Ended, Executor, Pool, Report, Started
from mu.bench.study import Job


class Serial(Executor):
    """Executor in this process, in the order of the study's jobs."""

    workers = 1

    def pool(self, bench: Any) -> Pool:
        return _SerialPool(bench)


class _SerialPool(Pool):
    """This process as the only worker.

    Args:
        bench: the jobs' Bench.
    """

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self._job: Job | None = None

    def __exit__(self, *_: Any) -> None:
        return

    @property
    def free(self) -> int:
        return 1 if self._job is None else 0

    def submit(self, jobs: list[Job]) -> None:
        (self._job,) = jobs

    def reports(self, seconds: float) -> Iterator[Report]:
        """Run the submitted job; without one, every run that is left is claimed elsewhere."""
        job = self._job
        if job is None:
            time.sleep(seconds)
            return
        self._job = None
        work = self.bench.begin(job)
        if callable(work):
            yield Started(job)
            work = work()
        assert work is None or isinstance(work, Outcome)
        yield Ended(job, work)
