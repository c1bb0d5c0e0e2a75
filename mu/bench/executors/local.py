"""Executor of worker processes on this machine, which share its cores and its GPUs."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from mu.bench.executors.base import Ended, Executor, Lost, Pool, Report, Started
from mu.bench.executors.worker import Assignment, run_job
from mu.bench.study import Job, Study
from mu.utils.errors import InputError, RunError

SECONDS_TO_END = 10.0
"""Time that an interrupted worker has to end, before it is killed."""


class Local(Executor):
    """Executor of worker processes.

    Each worker imports torch once. Its number of CPU threads is the study's, or else its share of
    the cores; GPUs are dealt out in turn.

    Args:
        workers: number of processes.
    """

    def __init__(self, workers: int = 2) -> None:
        if workers < 1:
            raise InputError(f"the number of workers is {workers}; give 1 at least.")
        self.workers = workers

    def pool(self, bench: Any) -> Pool:
        return _Processes(bench, self.workers or 1)


class _Processes(Pool):
    """Worker processes; a dead one is replaced.

    Args:
        bench: the jobs' Bench.
        count: number of processes.
    """

    def __init__(self, bench: Any, count: int) -> None:
        self.assignment = Assignment.to(bench)
        self.slots = [
            _Slot(f"worker {index + 1}", worker_environment(bench.study, index, count))
            for index in range(count)
        ]

    def __exit__(self, *_: Any) -> None:
        for slot in self.slots:
            slot.end()
        for slot in self.slots:
            slot.join()

    @property
    def free(self) -> int:
        return sum(slot.job is None for slot in self.slots)

    def submit(self, jobs: list[Job]) -> None:
        idle = [slot for slot in self.slots if slot.job is None]
        for slot, job in zip(idle, jobs, strict=False):
            slot.give(self.assignment, job)

    def reports(self, seconds: float) -> Iterator[Report]:
        busy = [slot for slot in self.slots if slot.job is not None]
        sources = {source: slot for slot in busy for source in slot.sources()}
        signalled = wait(list(sources), timeout=seconds)
        for slot in dict.fromkeys(sources[source] for source in signalled):
            yield from slot.reports()


class _Slot:
    """One worker process and its job.

    Args:
        name: name of the worker.
        environment: environment variables that its process has in addition.
    """

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.environment = environment
        self.job: Job | None = None
        self._process: Any = None
        self._connection: Any = None

    def give(self, assignment: Assignment, job: Job) -> None:
        """Hand a job to the process, which is started where there is none."""
        self.job = job
        if self._process is None:
            self._start(assignment)
        with suppress(OSError):  # a process that has just died is noticed by `reports`
            self._connection.send(job)

    def _start(self, assignment: Assignment) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=_serve, args=(remote, assignment), name=self.name)
        with _environment(self.environment):
            self._process.start()
        remote.close()

    def sources(self) -> tuple[Any, Any]:
        """What becomes readable when the process sends a report or ends."""
        return self._connection, self._process.sentinel

    def reports(self) -> Iterator[Report]:
        """What the process has sent; a Lost report where it has died in the middle of its job."""
        job = self.job
        assert job is not None
        try:
            while self._connection.poll():
                name, content = self._connection.recv()
                if name == "started":
                    yield Started(job, self.name)
                elif name == "ended":
                    self.job = None
                    yield Ended(job, content, self.name)
                else:
                    error, trace = content
                    error.add_note(trace)
                    raise error
        except (EOFError, ConnectionError):
            self._process.join(SECONDS_TO_END)
        if self.job is not None and not self._process.is_alive():
            reason = _cause_of_death(self.name, self._process.exitcode)
            self.job = None
            self._process = None
            yield Lost(job, reason, self.name)

    def end(self) -> None:
        """Ask the process to end: at once, or by SIGTERM where it works on a job."""
        if self._process is None:
            return
        if self.job is not None:
            self._process.terminate()
        self._connection.close()

    def join(self) -> None:
        """Wait for the end of the process; kill it where it takes too long."""
        if self._process is None:
            return
        self._process.join(SECONDS_TO_END)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = None


def _serve(connection: Connection, assignment: Assignment) -> None:
    """Run the jobs that come through a connection, until it is closed."""
    # the coordinator ends its workers: a terminal sends Ctrl-C to all of them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_coordinator, daemon=True).start()
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            outcome = run_job(assignment, job, lambda: connection.send(("started", None)))
        except Exception as error:  # only with `debug`: an error is the outcome otherwise
            connection.send(("error", (_portable(error), traceback.format_exc())))
        else:
            connection.send(("ended", outcome))


def _end_with_coordinator() -> None:
    """End this process when the one that started it has died, so that its claim is free."""
    coordinator = multiprocessing.parent_process()
    if coordinator is not None:
        coordinator.join()
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error, or one with its message where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling calls any code of the error's class
        return RunError(str(error))
    return error


def _cause_of_death(worker: str, code: int | None) -> str:
    """Clause on the end of a worker."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        cause = ", as happens when memory runs out" if name == "SIGKILL" else ""
        return f"{worker} was ended by {name}{cause}"
    return f"{worker} ended with code {code}"


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def worker_environment(study: Study, index: int, count: int) -> dict[str, str]:
    """Environment variables of a worker: its share of the cores, and its GPUs.

    Args:
        study: the study; its own number of threads outranks the share.
        index: of the worker.
        count: of all workers.
    """
    variables = {}
    if study.threads is None and "OMP_NUM_THREADS" not in os.environ:
        share = str(max(1, available_cores() // count))
        variables = {"OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share}
    gpus = visible_gpus() if study.trainer.get("accelerator") != "cpu" else []
    if gpus:
        size = devices_of_run(study) or len(gpus)
        chosen = [gpus[(index * size + offset) % len(gpus)] for offset in range(size)]
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(chosen))
    return variables


def available_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def devices_of_run(study: Study) -> int:
    """Largest number of devices of one run; 0 where a run sees all (`auto`, -1, a list)."""
    trainers = [study.trainer, study.recipe.get("trainer")]
    trainers += [
        study.method_spec(task, method).get("trainer")
        for task in study.tasks
        for method in study.methods
    ]
    values = [(trainer or {}).get("devices", 1) for trainer in trainers]
    counts = [int(value) for value in values if str(value).isdigit()]
    return min(counts) and max(counts) if len(counts) == len(values) else 0
