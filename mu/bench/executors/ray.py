"""Executor of Ray tasks, on this machine or on a cluster whose nodes share the study's folder."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from mu.bench.events import Outcome
from mu.bench.executors.base import ATTEMPTS, Ended, Executor, Pool, Report, Restarted, Started
from mu.bench.executors.local import available_cores
from mu.bench.executors.worker import Assignment, run_job
from mu.bench.study import Job, Study
from mu.utils.errors import InputError
from mu.utils.extras import require

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
        self.log = ray.remote(_StartLog).options(**_on_this_node(ray)).remote()
        self.task = ray.remote(_run).options(
            num_cpus=threads,
            num_gpus=executor.gpus,
            max_retries=ATTEMPTS - 1,
        )

    def __exit__(self, *_: Any) -> None:
        for reference in self.jobs:
            self.ray.cancel(reference, force=True)
        self.ray.kill(self.log)
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
        for job, node in self.ray.get(self.log.drain.remote()):
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


class _StartLog:
    """Starts of tasks, as an actor on the node of the coordinator."""

    def __init__(self) -> None:
        self.starts: list[tuple[Job, str]] = []

    def add(self, job: Job, node: str) -> None:
        """Record that a job has begun on a node."""
        self.starts.append((job, node))

    def drain(self) -> list[tuple[Job, str]]:
        """Starts since the last call."""
        starts = self.starts
        self.starts = []
        return starts


def _run(assignment: Assignment, job: Job, log: Any) -> Outcome | None:
    """Run a job as a Ray task."""
    import ray

    node = f"node {ray.get_runtime_context().get_node_id()[:6]}"
    return run_job(assignment, job, lambda: ray.get(log.add.remote(job, node)))


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


def _on_this_node(ray: Any) -> dict[str, Any]:
    """Options of an actor that lives as long as the coordinator, and takes no CPU."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True),
    }
