"""Base of executors: jobs dispatched as soon as the jobs that they need have ended."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from mu.bench.events import JobEnded, JobEvent, JobRestarted, JobStarted, JobWaiting, Outcome
from mu.bench.study import Job

POLL_SECONDS = 0.5
"""Longest wait for a report, and shortest time between two looks at a claimed run."""

ATTEMPTS = 3
"""Workers that a job may lose before it counts as failed."""


@dataclass(frozen=True)
class Started:
    """Report that a worker has begun to train or measure."""

    job: Job
    worker: str = ""


@dataclass(frozen=True)
class Ended:
    """Report of a job's outcome; None where another process holds the claim of its run."""

    job: Job
    outcome: Outcome | None
    worker: str = ""


@dataclass(frozen=True)
class Lost:
    """Report that the worker of a job has gone; `reason` is a clause."""

    job: Job
    reason: str
    worker: str = ""


@dataclass(frozen=True)
class Restarted:
    """Report that the pool itself has begun a job again, because its worker has gone."""

    job: Job
    reason: str
    worker: str = ""


Report = Started | Ended | Lost | Restarted


class Pool(AbstractContextManager["Pool", None], ABC):
    """Workers of an executor; leaving the context ends them."""

    @property
    @abstractmethod
    def free(self) -> int:
        """Number of jobs that the pool takes now."""

    @abstractmethod
    def submit(self, jobs: list[Job]) -> None:
        """Hand jobs to workers, `free` of them at most."""

    @abstractmethod
    def reports(self, seconds: float) -> Iterable[Report]:
        """Reports of the workers; waits for the first one, `seconds` at most."""


class Executor(ABC):
    """Base of executors, each with a pool of workers of its own."""

    workers: int | None = None
    """Number of jobs that run at the same time; None where the cluster decides."""

    @abstractmethod
    def pool(self, bench: Any) -> Pool:
        """Workers for the jobs of a Bench."""

    def check(self) -> None:
        """Check that the executor can be used, before anything has run.

        Raises:
            InputError: names what is missing.
        """
        return

    def execute(self, bench: Any) -> Iterator[JobEvent]:
        """Run the jobs of a bench, each after those that it needs.

        A failed job stops no other; those that need it fail with a reason of their own. A job whose
        worker is lost runs again, on ATTEMPTS workers in all.

        Args:
            bench: a Bench, or a SearchBench: its `edges()` are the jobs.

        Yields:
            JobStarted, JobRestarted and JobWaiting as they happen, one JobEnded for every job.
            A finished run is reused without a start.
        """
        edges = bench.edges()
        position = {job: index for index, job in enumerate(edges)}
        sorter = TopologicalSorter(edges)
        sorter.prepare()
        ready: list[Job] = []
        progress = _Progress()
        with self.pool(bench) as pool:
            while sorter.is_active():
                ready = sorted([*ready, *sorter.get_ready()], key=position.__getitem__)
                chosen = progress.due(ready)[: pool.free]
                ready = [job for job in ready if job not in chosen]
                if chosen:
                    pool.submit(chosen)
                for report in pool.reports(POLL_SECONDS):
                    event, again = progress.event(report)
                    if isinstance(event, JobEnded):
                        sorter.done(event.job)
                    if again:
                        ready.append(report.job)
                    if event is not None:
                        yield event


class _Progress:
    """Starts, losses and waits of the jobs that run."""

    def __init__(self) -> None:
        self.starts: dict[Job, float] = {}
        self.losses: Counter[Job] = Counter()
        self.next_look: dict[Job, float] = {}

    def due(self, jobs: list[Job]) -> list[Job]:
        """Jobs that may start now: not those whose run another process held a moment ago."""
        now = time.monotonic()
        return [job for job in jobs if self.next_look.get(job, 0.0) <= now]

    def event(self, report: Report) -> tuple[JobEvent | None, bool]:
        """Event of a report, if any, and whether the job must be submitted again."""
        job = report.job
        now = time.monotonic()
        if isinstance(report, Started):
            self.starts[job] = now
            return JobStarted(job, report.worker), False
        if isinstance(report, Restarted):
            return JobRestarted(job, report.reason, report.worker), False
        seconds = now - self.starts.get(job, now)
        if isinstance(report, Lost):
            self.losses[job] += 1
            if self.losses[job] < ATTEMPTS:
                return JobRestarted(job, report.reason, report.worker), True
            reason = f"{self.losses[job]} workers were lost by it; of the last, {report.reason}"
            return JobEnded(
                job, Outcome(job, "failed", None, reason), seconds, report.worker
            ), False
        if report.outcome is None:
            first_look = job not in self.next_look
            self.next_look[job] = now + POLL_SECONDS
            return (JobWaiting(job) if first_look else None), True
        return JobEnded(job, report.outcome, seconds, report.worker), False
