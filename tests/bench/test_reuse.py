"""Reuse in a study: training again for other weights, measuring again for other numbers."""

from __future__ import annotations

import shutil
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from mu.bench.events import JobEnded
from mu.bench.executors.serial import Serial
from mu.bench.runner import Bench
from mu.bench.study_file import read_study
from tests.bench.small_study import STUDY, record, written


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """Copy of the finished study."""
    shutil.copytree(finished / "out", tmp_path / "out")
    return tmp_path


def states(folder: Path, **changes: Any) -> dict[str, str]:
    """State of each outcome of the study with other entries, by method and seed."""
    bench = Bench(read_study(written(folder, **changes)), debug=True)
    return {
        f"{event.job.role}/{event.job.method}/{event.job.seeds.split}": event.outcome.state
        for event in Serial().execute(bench)
        if isinstance(event, JobEnded)
    }


def checkpoints(folder: Path) -> dict[Path, int]:
    """Times of all checkpoints."""
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*.ckpt")}


def measured_at(folder: Path, method: str) -> dict[str, str]:
    """Time of each measurement of a method, by suite."""
    measurements = record(folder, method).measurements
    return {entry.suite.rpartition(".")[2]: entry.measured for entry in measurements}


def test_a_new_suite_is_measured_without_training_and_leaves_other_numbers(copied: Path) -> None:
    """Fails when a suite in the study's file trains anything again, or measures the rest anew."""
    weights = checkpoints(copied)
    before = measured_at(copied, "SSD")
    outcomes = states(copied, suites=[*STUDY["suites"], "callbacks.Relearning"])
    assert Counter(outcomes.values()) == {"measured": 4, "reused": 1}
    assert outcomes["train/original/0"] == "reused"
    assert checkpoints(copied) == weights
    after = measured_at(copied, "SSD")
    assert after.pop("Relearning") and after == before
    assert set(states(copied).values()) == {"reused"}, "a suite that is left out changes nothing"


def test_a_changed_suite_is_measured_again_with_the_gap_that_compares_it(copied: Path) -> None:
    """Fails when the gap still compares numbers of the old options."""
    before = measured_at(copied, "SSD")
    weights = checkpoints(copied)
    membership = {"class_path": "callbacks.Membership", "init_args": {"attacks": ["confidence"]}}
    suites = ["callbacks.Accuracy", membership, "callbacks.Cost"]
    methods = {"SSD": STUDY["methods"]["SSD"]}
    outcomes = states(copied, suites=suites, methods=methods)
    assert outcomes["method/SSD/0"] == outcomes["oracle/oracle/0"] == "measured"
    assert checkpoints(copied) == weights
    after = measured_at(copied, "SSD")
    changed = {name for name, time in after.items() if before.get(name) != time}
    assert {"Membership", "RetrainGap"} <= changed and "Cost" not in changed


def test_a_new_method_or_seed_trains_only_that(copied: Path) -> None:
    weights = checkpoints(copied)
    methods = {**STUDY["methods"], "Again": STUDY["methods"]["SSD"]}
    outcomes = states(copied, seeds=[0, 1], methods={"Again": methods["Again"]})
    assert outcomes == {
        "train/original/0": "reused",
        "oracle/oracle/0": "reused",
        "original/original/0": "reused",
        "method/Again/0": "ran",
        "train/original/1": "ran",
        "oracle/oracle/1": "ran",
        "original/original/1": "ran",
        "method/Again/1": "ran",
    }
    assert weights.items() <= checkpoints(copied).items()


@pytest.mark.parametrize(
    ("arguments", "state"),
    [({"workers": 1}, "reused"), ({"evaluated": ["forget", "retain", "test"]}, "measured")],
)
def test_arguments_of_a_task_count_for_what_they_change(
    copied: Path, arguments: dict[str, Any], state: str
) -> None:
    """Fails when loader processes train again, or other measured parts leave old numbers."""
    tasks = deepcopy(STUDY["tasks"])
    tasks["random"]["init_args"] |= arguments
    outcomes = states(copied, tasks=tasks)
    assert outcomes.pop("train/original/0") == "reused"
    assert set(outcomes.values()) == {state}


def test_a_run_that_another_process_holds_is_skipped_and_then_reused(copied: Path) -> None:
    """Fails when two studies on one folder train one run at the same time."""
    shutil.rmtree(next((copied / "out" / "random" / "SSD").iterdir()))
    study = read_study(written(copied))
    job = study.jobs()[-1]
    first = Bench(study, debug=True).begin(job)
    assert callable(first)
    second = Bench(study, debug=True)
    assert second.begin(job) is None
    assert first().state == "ran"
    outcome = second.begin(job)
    assert not callable(outcome) and outcome is not None and outcome.state == "reused"
