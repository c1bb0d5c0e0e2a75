"""Outcomes and events of the jobs of a study, which an executor yields and `mu bench` displays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mu.bench.study import Job

STATES = ("ran", "resumed", "measured", "reused", "failed")
"""States of an outcome.

`ran`: trained and measured. `resumed`: trained on from a checkpoint. `measured`: only measured,
because it is trained already. `reused`: nothing was left to do. `failed`: with a reason.
"""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job.

    Attributes:
        job: the job.
        state: one of STATES.
        folder: its run folder; None where it failed.
        reason: sentence why it failed; empty otherwise.
    """

    job: Job
    state: str
    folder: Path | None = None
    reason: str = ""


@dataclass(frozen=True)
class JobStarted:
    """Start of a job's training or measuring on a worker.

    A job starts again after a JobRestarted. A finished run that is reused has no start.

    Attributes:
        job: the job.
        worker: name of the worker (`worker 2`, a node, a Slurm job); empty in this process.
    """

    job: Job
    worker: str = ""


@dataclass(frozen=True)
class JobRestarted:
    """Loss of the worker of a job, which will run again on another one.

    Attributes:
        job: the job.
        reason: what happened to the worker, as the end of a sentence.
        worker: name of the worker that was lost.
    """

    job: Job
    reason: str
    worker: str = ""


@dataclass(frozen=True)
class JobWaiting:
    """Run of a job in another process, such as a second `mu bench` on the same folder.

    The job starts when that process ends, and then finds a finished run.

    Attributes:
        job: the job.
    """

    job: Job


@dataclass(frozen=True)
class JobEnded:
    """End of a job, which comes once for every job of the study.

    Attributes:
        job: the job.
        outcome: its outcome.
        seconds: wall-clock time from start to end.
        worker: name of the worker.
    """

    job: Job
    outcome: Outcome
    seconds: float = 0.0
    worker: str = ""


JobEvent = JobStarted | JobRestarted | JobWaiting | JobEnded
