"""Executor of Ray tasks, on this machine or on a cluster whose nodes share the study's folder."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from mu.bench.events import Outcome
from mu.bench.executors.base import ATTEMPTS, Ended, Executor, Pool, Report, Restarted, Started
from mu.bench.executors.local import available_cores
from mu.bench.executors.worker import Assignment, run_job
from mu.bench.study import Job, Study
from mu.utils.errors import InputError
from mu.utils.extras import require
from mu.utils.files import read_json, write_json

STARTS = ".ray"
"""Folder of the starts of tasks inside a study's folder."""

ALL = 1_000_000
"""Number of jobs that Ray takes where `workers` sets no limit: it queues what has no place yet."""


class Ray(Executor):
    """Executor of Ray tasks, one a job.

    Ray runs as many tasks as the cluster has CPUs and GPUs for, and starts the tasks of a lost node
    again on another one.

    Args:
        workers: largest number of jobs at the same time; None for what the cluster has room for.
        address: address of a running cluster (`auto`, `HOST:6379`, `ray://HOST:10001`); None starts
            Ray on this machine.
        cpus: CPUs of a job, also its number of threads; the study's `threads` when None, or else 1.
        gpus: GPUs of a job, perhaps a fraction.
    """

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        cpus: int | None = None,
        gpus: float = 0,
    ) -> None:
        self.workers = workers
        self.address = address
        self.cpus = cpus
        self.gpus = gpus

    def check(self) -> None:
        require("--executor ray", "ray", extra="ray")

    def threads(self, study: Study) -> int:
        """Number of CPUs, and of threads, of a job."""
        return self.cpus or study.threads or 1

    def pool(self, bench: Any) -> Pool:
        return _Tasks(bench, self)


class _Tasks(Pool):
    """Tasks of a Ray cluster.

    Args:
        bench: the jobs' Bench.
        executor: its settings.
    """

    def __init__(self, bench: Any, executor: Ray) -> None:
        import ray

        self.ray: Any = ray
        self.limit = executor.workers or ALL
        self.jobs: dict[Any, Job] = {}
        self.workers: dict[Job, str] = {}
        self.owns_ray = not ray.is_initialized()
        if self.owns_ray:
            _connect(ray, executor, bench.study)
        threads = executor.threads(bench.study)
        self.assignment = ray.put(Assignment.to(bench, threads))
        self.log = StartLog(bench.study.output.absolute() / STARTS / uuid4().hex)
        self.task = ray.remote(_run).options(
            num_cpus=threads,
            num_gpus=executor.gpus,
            max_retries=ATTEMPTS - 1,
        )

    def __exit__(self, *_: Any) -> None:
        for reference in self.jobs:
            self.ray.cancel(reference, force=True)
        self.log.remove()
        if self.owns_ray:
            self.ray.shutdown()

    @property
    def free(self) -> int:
        return self.limit - len(self.jobs)

    def submit(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.jobs[self.task.remote(self.assignment, job, self.log)] = job

    def reports(self, seconds: float) -> Iterator[Report]:
        done: list[Any] = []
        if self.jobs:
            done, _ = self.ray.wait(list(self.jobs), num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)
        for job, node in self.log.drain(self.jobs.values()):
            if job in self.workers:
                yield Restarted(job, f"{self.workers[job]} was lost", self.workers[job])
            self.workers[job] = node
            yield Started(job, node)
        for reference in done:
            job = self.jobs.pop(reference)
            worker = self.workers.pop(job, "")
            try:
                outcome: Outcome | None = self.ray.get(reference)
            except self.ray.exceptions.RayTaskError as error:  # only with `debug`
                raise error.as_instanceof_cause() from None
            except self.ray.exceptions.RayError as error:
                reason = " ".join(str(error).split())
                yield Ended(job, Outcome(job, "failed", None, reason), worker)
            else:
                yield Ended(job, outcome, worker)


class StartLog:
    """Starts of tasks, a file each, in a folder that all nodes share.

    An actor would be lost with its node.

    Args:
        folder: the folder; made with the first start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, job: Job, node: str) -> None:
        """Record that a job has begun on a node."""
        write_json(self.folder / f"{uuid4().hex}.json", {"job": job.label, "node": node})

    def drain(self, jobs: Iterable[Job]) -> list[tuple[Job, str]]:
        """Starts of some jobs since the last call, with their nodes."""
        by_label = {job.label: job for job in jobs}
        starts = []
        for file in sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns):
            content = read_json(file)
            file.unlink()
            if content["job"] in by_label:
                starts.append((by_label[content["job"]], content["node"]))
        return starts

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _run(assignment: Assignment, job: Job, log: StartLog) -> Outcome | None:
    """Run a job as a Ray task."""
    import ray

    node = f"node {ray.get_runtime_context().get_node_id()[:6]}"
    return run_job(assignment, job, lambda: log.add(job, node))


def _connect(ray: Any, executor: Ray, study: Study) -> None:
    """Connect to a cluster, or start Ray on this machine, reachable from nowhere else."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if executor.address is None:
        needed = (executor.workers or 1) * executor.threads(study)
        ray.init(
            num_cpus=max(available_cores(), needed),
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **settings,
        )
        return
    _check_reachable(executor.address)
    try:
        ray.init(address=executor.address, **settings)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(executor.address, error) from error


def _check_reachable(address: str) -> None:
    """Refuse an address where nothing answers, which Ray itself tries for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # `auto`, `local`
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(
        f"there is no Ray cluster at {address} ({reason}); start one with ray start --head, or "
        "leave out --address."
    )
