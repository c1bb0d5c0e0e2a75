"""Graph of a study's jobs."""

from __future__ import annotations

from pathlib import Path

from mu.bench.graph import job_graph
from mu.bench.study_file import read_study
from tests.bench.small_study import STUDY, written


def names(folder: Path, **changes: object) -> dict[str, list[str]]:
    """Roles of the needed jobs, by role of a job."""
    graph = job_graph(read_study(written(folder, **changes)))
    return {job.role: [needed.role for needed in needs] for job, needs in graph.items()}


def test_methods_need_original_and_oracle_of_their_seeds(tmp_path: Path) -> None:
    assert names(tmp_path) == {
        "train": [],
        "oracle": [],
        "original": ["train"],
        "method": ["train", "oracle"],
    }
    graph = job_graph(read_study(written(tmp_path, seeds=[0, 1])))
    assert all(needed.seeds == job.seeds for job, needs in graph.items() for needed in needs)


def test_methods_of_pretrained_weights_need_their_measurement(tmp_path: Path) -> None:
    """Fails when a method may begin before the hash of the weights it must begin from is there."""
    assert names(tmp_path, original="given") == {
        "oracle": [],
        "original": [],
        "method": ["original", "oracle"],
    }
    assert names(tmp_path, original="given", oracle="none")["method"] == ["original"]


def test_a_suite_that_takes_the_oracle_is_measured_after_it(tmp_path: Path) -> None:
    suites = [*STUDY["suites"], "callbacks.Relearning"]
    assert names(tmp_path, suites=suites)["original"] == ["train", "oracle"]
