"""Slurm jobs by submitit, tried by its local executor."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mu.bench.events import JobEnded, JobRestarted, Outcome
from mu.bench.executors.slurm import Slurm, SlurmTask, slurm_parameters
from mu.bench.runner import Bench
from mu.bench.study import Job
from mu.bench.study_file import read_study
from mu.cli.bench import main
from mu.utils.errors import InputError
from tests.bench.small_study import numbers_of, written


@pytest.mark.slow
def test_a_study_by_submitit_gives_the_numbers_of_one_process(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--executor", "slurm", "--slurm", "cluster=local", "--workers", "2"]
    assert main(["-c", str(written(tmp_path)), *arguments]) == 0
    assert "5 ran" in capsys.readouterr().out
    assert numbers_of(tmp_path) == numbers_of(finished)


class DyingBench(Bench):
    """Bench whose first job kills its process once; the others are done."""

    def begin(self, job: Job, wait: bool = False) -> Outcome | Any:
        marker = self.study.output / ".killed"
        if job.role == "train" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome(job, "reused")


@pytest.mark.slow
def test_a_killed_job_is_submitted_again(tmp_path: Path) -> None:
    """Fails when a job that Slurm has ended is lost."""
    study = read_study(written(tmp_path))
    study.output.mkdir()
    events = list(Slurm(2, options={"cluster": "local"}).execute(DyingBench(study)))
    ended = Counter(event.job for event in events if isinstance(event, JobEnded))
    assert ended == Counter(study.jobs())
    (restarted,) = [event for event in events if isinstance(event, JobRestarted)]
    assert restarted.job.role == "train" and "Slurm job" in restarted.reason


def test_parameters_reach_submitit_under_their_names(tmp_path: Path) -> None:
    """Fails when a partition is dropped, or a run gets more than one task."""
    study = read_study(written(tmp_path))
    executor = Slurm(8, cpus=4, gpus=1, options={"partition": "gpu", "mem_gb": 16, "time": 30})
    assert slurm_parameters(study, executor) == {
        "name": "study",
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": 4,
        "timeout_min": 1440,
        "gpus_per_node": 1,
        "slurm_array_parallelism": 8,
        "slurm_partition": "gpu",
        "mem_gb": 16,
        "slurm_time": 30,
    }
    assert slurm_parameters(study, Slurm())["cpus_per_task"] == 1, "the study's threads"


def test_a_job_at_its_time_limit_is_queued_again_with_the_same_arguments() -> None:
    """Fails when submitit cannot queue a pre-empted job."""
    delayed = SlurmTask().checkpoint("assignment", "job", Path("start"))  # type: ignore[arg-type]
    assert delayed.args == ("assignment", "job", Path("start"))


def test_a_machine_without_slurm_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="finds no sbatch"):
        main(["-c", str(written(tmp_path)), "--executor", "slurm"])
    assert not (tmp_path / "out").exists()
