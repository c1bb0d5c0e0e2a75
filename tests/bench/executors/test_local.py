"""Worker processes: numbers of the serial study, lost workers, shares of cores and GPUs."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mu.bench.events import JobEnded, JobRestarted, JobStarted, Outcome
from mu.bench.executors.local import Local, worker_environment
from mu.bench.runner import Bench
from mu.bench.study import Job, Study
from mu.bench.study_file import read_study
from mu.cli.bench import main
from mu.utils.errors import InputError
from tests.bench.small_study import numbers_of, written

SEEDS = [0, 1]


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Study of two seeds that ran in one process."""
    folder = tmp_path_factory.mktemp("serial")
    assert main(["-c", str(written(folder, seeds=SEEDS))]) == 0
    return folder


class DyingBench(Bench):
    """Bench whose worker is killed once, between the fit and the test of FineTune."""

    def begin(self, job: Job, wait: bool = False) -> Any:
        work = super().begin(job, wait)
        marker = self.study.output / ".killed"
        if job.method != "FineTune" or job.seeds.split != 1 or marker.exists():
            return work
        from mu.bench import runner

        def die(*_: Any, **__: Any) -> None:
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

        fit_and_test: Callable[..., None] = runner.fit_and_test
        runner.fit_and_test = lambda *a, on_fitted, **k: fit_and_test(*a, on_fitted=die, **k)  # type: ignore[assignment]
        return work


@pytest.mark.slow
def test_four_workers_with_one_killed_give_the_numbers_of_one_process(
    serial: Path, tmp_path: Path
) -> None:
    """Fails when the job of a dead worker is lost, runs twice, or a number depends on workers."""
    study = read_study(written(tmp_path, seeds=SEEDS))
    executor = Local(4)
    events = list(executor.execute(DyingBench(study)))
    ended = [event for event in events if isinstance(event, JobEnded)]
    assert Counter(event.job for event in ended) == Counter(study.jobs())
    (restarted,) = [event for event in events if isinstance(event, JobRestarted)]
    assert restarted.job.label == "random · FineTune · seed1" and "SIGKILL" in restarted.reason
    states = {event.job.label: event.outcome.state for event in ended}
    assert states.pop("random · FineTune · seed1") == "resumed"
    assert set(states.values()) == {"ran"}
    assert main(["-c", str(tmp_path / "study.yaml"), "--workers", "2"]) == 0
    assert numbers_of(tmp_path) == numbers_of(serial)


@pytest.mark.slow
def test_a_job_starts_after_those_that_it_needs_and_is_reused_without_a_start(
    tmp_path: Path,
) -> None:
    """Fails when a method starts before its oracle, or a finished study starts anything."""
    study = read_study(written(tmp_path))
    bench = Bench(study)
    ended: set[Job] = set()
    for event in Local(2).execute(bench):
        if isinstance(event, JobStarted):
            assert set(bench.edges()[event.job]) <= ended
        if isinstance(event, JobEnded):
            ended.add(event.job)
    assert ended == set(study.jobs())
    events = list(Local(2).execute(Bench(study)))
    assert {type(event) for event in events} == {JobEnded}
    assert {event.outcome.state for event in events} == {"reused"}


class FailingBench(Bench):
    """Bench in which every run of SSD kills its worker."""

    def begin(self, job: Job, wait: bool = False) -> Outcome | Any:
        if job.method == "SSD":
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome(job, "reused")


def test_a_job_that_kills_its_workers_fails_after_three_and_stops_no_other(
    tmp_path: Path,
) -> None:
    """Fails when such a job runs for ever, or takes the study with it."""
    study = read_study(written(tmp_path))
    outcomes = {
        event.job.method: event.outcome
        for event in Local(1).execute(FailingBench(study))
        if isinstance(event, JobEnded)
    }
    assert outcomes["SSD"].state == "failed" and "3 workers were lost" in outcomes["SSD"].reason
    assert outcomes["FineTune"].state == "reused"


class RaisingBench(Bench):
    """Bench that lets an error through, as `--debug` does."""

    def begin(self, job: Job, wait: bool = False) -> Outcome | Any:
        raise InputError("no such layer")


def test_an_error_of_a_worker_is_raised_with_its_traceback(tmp_path: Path) -> None:
    """Fails when `--debug` hides where a worker failed."""
    bench = RaisingBench(read_study(written(tmp_path)), debug=True)
    with pytest.raises(InputError, match="no such layer") as caught:
        list(Local(1).execute(bench))
    assert "in begin" in "".join(caught.value.__notes__)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Study without a number of threads, on a machine with four GPUs and eight cores."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("mu.bench.executors.local.available_cores", lambda: 8)
    return replace(read_study(written(tmp_path)), threads=None, trainer={})


def environments(study: Study, count: int) -> list[dict[str, str]]:
    return [worker_environment(study, index, count) for index in range(count)]


def test_workers_share_cores_and_gpus(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when all workers begin on the first GPU, or each takes every core."""
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(study, 5)] == [*"4567", "4"]
    assert {e["OMP_NUM_THREADS"] for e in environments(study, 4)} == {"2"}
    assert {e["OMP_NUM_THREADS"] for e in environments(study, 16)} == {"1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS" not in environments(study, 4)[0], "the user has chosen"


def test_a_run_gets_as_many_gpus_as_its_trainer_asks_for(study: Study) -> None:
    """Fails when two workers with two devices each meet on one GPU."""

    def gpus(**trainer: Any) -> list[str]:
        workers = environments(replace(study, trainer=trainer), 2)
        return [environment.get("CUDA_VISIBLE_DEVICES", "") for environment in workers]

    assert gpus(devices=2) == ["4,5", "6,7"]
    assert {frozenset(chosen.split(",")) for chosen in gpus(devices="auto")} == {frozenset("4567")}
    assert gpus(devices=[1, 3]) == ["4,5,6,7", "4,5,6,7"], "indices stay those of the user"
    assert gpus(accelerator="cpu") == ["", ""]


def test_threads_of_the_study_outrank_the_share(study: Study) -> None:
    """Fails when a number depends on the executor, because torch sums among other threads."""
    assert "OMP_NUM_THREADS" not in worker_environment(replace(study, threads=2), 0, 4)


@pytest.mark.parametrize("workers", [0, -1])
def test_a_number_of_workers_below_one_is_refused(workers: int) -> None:
    with pytest.raises(InputError, match="give 1 at least"):
        Local(workers)
