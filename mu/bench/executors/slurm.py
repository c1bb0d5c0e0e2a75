"""Executor of Slurm jobs by submitit: one array a stage of the study."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from mu.bench.events import Outcome
from mu.bench.executors.base import Ended, Executor, Lost, Pool, Report, Restarted, Started
from mu.bench.executors.local import available_cores
from mu.bench.executors.worker import Assignment, run_job
from mu.bench.study import Job, Study
from mu.utils.errors import InputError, RunError
from mu.utils.extras import require

LOGS = ".slurm"
"""Folder of the scripts and logs of Slurm jobs inside a study's folder."""

ALL = 1_000_000
"""Number of jobs that a stage may have."""

MINUTES = 24 * 60
"""Time limit of a job where none is given."""


class Slurm(Executor):
    """Executor of Slurm jobs.

    A stage is an array: first originals and oracles, then what needs them. A job that is pre-empted
    or reaches its time limit is queued again, and resumes from its checkpoint.

    Args:
        workers: largest number of tasks of an array at the same time; None for Slurm's own limits.
        cpus: CPUs of a job; the study's `threads` when None, or else 1.
        gpus: GPUs of a job.
        options: further parameters of `submitit.AutoExecutor.update_parameters`, without `slurm_`
            (`partition`, `account`, `mem`, `time`); `cluster: local` runs processes of this
            machine in their place.
    """

    def __init__(
        self,
        workers: int | None = None,
        cpus: int | None = None,
        gpus: int = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.workers = workers
        self.cpus = cpus
        self.gpus = gpus
        self.options = dict(options or {})

    def check(self) -> None:
        require("--executor slurm", "submitit", extra="slurm")
        if "cluster" not in self.options and shutil.which("sbatch") is None:
            raise InputError(
                "--executor slurm finds no sbatch on this machine; run it where Slurm jobs are "
                "submitted, or try it with --slurm cluster=local."
            )

    def threads(self, study: Study) -> int:
        """Number of CPUs, and of threads, of a job."""
        return self.cpus or study.threads or 1

    def pool(self, bench: Any) -> Pool:
        return _Arrays(bench, self)


class SlurmTask:
    """A job as a function that submitit can run, and queue again."""

    def __call__(self, assignment: Assignment, job: Job, start_file: Path) -> Outcome | None:
        return run_job(assignment, job, start_file.touch, wait=True)

    def checkpoint(self, assignment: Assignment, job: Job, start_file: Path) -> Any:
        """The same call again, after a time limit or a pre-emption."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, assignment, job, start_file)


class _Arrays(Pool):
    """Arrays of Slurm jobs, one at a time.

    Args:
        bench: the jobs' Bench.
        executor: its settings.
    """

    def __init__(self, bench: Any, executor: Slurm) -> None:
        import submitit

        self.folder = (bench.study.output / LOGS).absolute()
        self.assignment = Assignment.to(bench, executor.threads(bench.study))
        cluster = executor.options.get("cluster")
        self.executor = submitit.AutoExecutor(folder=self.folder, cluster=cluster)
        self.executor.update_parameters(**slurm_parameters(bench.study, executor))
        # submitit's local executor starts a whole array at once
        self.limit = (executor.workers or available_cores()) if cluster == "local" else ALL
        self.is_staged = cluster != "local"
        self.running: dict[Job, tuple[Any, Path]] = {}
        self.started: set[Job] = set()

    def __exit__(self, *_: Any) -> None:
        for slurm_job, _file in self.running.values():
            slurm_job.cancel()

    @property
    def free(self) -> int:
        if self.is_staged and self.running:
            return 0
        return self.limit - len(self.running)

    def submit(self, jobs: list[Job]) -> None:
        files = [self.folder / f"started-{uuid4().hex}" for _ in jobs]
        assignments = [self.assignment] * len(jobs)
        slurm_jobs = self.executor.map_array(SlurmTask(), assignments, jobs, files)
        self.running.update(zip(jobs, zip(slurm_jobs, files, strict=True), strict=True))

    def reports(self, seconds: float) -> Iterator[Report]:
        time.sleep(seconds)
        for job, (slurm_job, file) in list(self.running.items()):
            worker = f"Slurm job {slurm_job.job_id}"
            done = slurm_job.done()
            if file.exists():
                file.unlink()
                if job in self.started:
                    yield Restarted(job, f"{worker} was queued again", worker)
                self.started.add(job)
                yield Started(job, worker)
            if done:
                del self.running[job]
                self.started.discard(job)
                yield self._end(job, slurm_job, worker)

    def _end(self, job: Job, slurm_job: Any, worker: str) -> Report:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            return Ended(job, slurm_job.result(), worker)
        except FailedJobError as error:  # only with `debug`: an error is the outcome otherwise
            raise RunError(str(error)) from error
        except UncompletedJobError:
            return Lost(job, f"{worker} ended as {slurm_job.state}; see {self.folder}", worker)


def slurm_parameters(study: Study, executor: Slurm) -> dict[str, Any]:
    """Parameters of submitit's AutoExecutor: those of a run, then the user's."""
    parameters: dict[str, Any] = {
        "name": study.name,
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": executor.threads(study),
        "timeout_min": MINUTES,
    }
    if executor.gpus:
        parameters["gpus_per_node"] = executor.gpus
    if executor.workers:
        parameters["slurm_array_parallelism"] = executor.workers
    for name, value in executor.options.items():
        if name == "cluster":
            continue
        shared = name in (*parameters, "mem_gb", "gpus_per_node", "stderr_to_stdout")
        parameters[name if shared or name.startswith("slurm_") else f"slurm_{name}"] = value
    return parameters
