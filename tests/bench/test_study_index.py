"""Index of a study: finished runs stay, missing ones are named with their reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from mu.bench.events import Outcome
from mu.bench.study import Study
from mu.bench.study_file import read_study
from mu.bench.study_index import NOT_RUN, StudyIndex, run_name
from mu.utils.files import read_json
from tests.bench.test_study import STUDY


def small_study(folder: Path) -> Study:
    tasks = {"random": {"class_path": "tasks.Digits"}}
    study = {**STUDY, "tasks": tasks, "output": str(folder / "out"), "seeds": [0]}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return read_study(folder / "study.yaml")


def written(study: Study, outcomes: Mapping[str, str], key: str = "a") -> dict:
    """Index after a call with these failures (reason by method), other runs finished."""
    index = StudyIndex(study, "mu bench", study.jobs())
    for job in study.jobs():
        reason = outcomes.get(job.method)
        if reason == "stop":
            break
        folder = None if reason else study.output / job.task / job.method / key
        index.add(Outcome(job, "failed" if reason else "ran", folder, reason or ""))
    index.write()
    return read_json(study.output / "study.json")


def test_runs_that_have_not_run_are_missing_from_the_start(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    StudyIndex(study, "mu bench", study.jobs()).write()
    index = read_json(study.output / "study.json")
    expected = {run_name(job) for job in study.jobs() if job.role != "train"}
    assert set(index["missing"]) == expected and set(index["missing"].values()) == {NOT_RUN}


def test_interrupted_call_lists_what_it_finished_and_what_it_lacks(tmp_path: Path) -> None:
    index = written(small_study(tmp_path), {"SSD": "stop"})
    assert "random/FineTune/seed0" in index["runs"]
    assert index["missing"] == {"random/SSD/seed0": NOT_RUN}


def test_failed_run_keeps_the_result_from_before_beside_the_same_references(
    tmp_path: Path,
) -> None:
    study = small_study(tmp_path)
    written(study, {})
    index = StudyIndex(study, "mu bench", study.jobs())
    for job in study.jobs():
        folder = None if job.method == "SSD" else study.output / job.task / job.method / "a"
        index.add(Outcome(job, "reused" if folder else "failed", folder, "" if folder else "why"))
    index.write()
    content = read_json(study.output / "study.json")
    assert content["runs"]["random/SSD/seed0"] == "random/SSD/a"
    assert content["missing"] == {"random/SSD/seed0": "why"}


def test_failed_run_leaves_the_index_when_its_references_are_others(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    written(study, {})
    content = written(study, {"SSD": "why"}, key="b")
    assert "random/SSD/seed0" not in content["runs"]
    assert content["missing"] == {"random/SSD/seed0": "why"}


def test_call_that_fails_as_a_whole_leaves_every_run_of_the_one_before(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    before = written(study, {})["runs"]
    methods = ("original", "oracle", "FineTune", "SSD")
    content = written(study, dict.fromkeys(methods, "no memory"), key="b")
    assert content["runs"] == before
    assert set(content["missing"].values()) == {"no memory"}


def test_missing_runs_of_another_call_stay_as_long_as_the_study_has_them(tmp_path: Path) -> None:
    study = small_study(tmp_path)
    written(study, {"SSD": "no memory", "FineTune": "no disc"})
    index = StudyIndex(study, "mu bench", study.only(None, "SSD").jobs())
    index.write()
    assert read_json(study.output / "study.json")["missing"] == {
        "random/FineTune/seed0": "no disc",
        "random/SSD/seed0": NOT_RUN,
    }
