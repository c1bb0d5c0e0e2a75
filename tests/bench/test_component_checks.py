"""Checks of what a study names: each method once, whatever its numbers on the tasks."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from mu.bench.component_checks import check_components, check_data
from mu.bench.study import Seeds, Study
from mu.bench.study_file import read_study
from mu.config.components import Components
from mu.utils.errors import InputError
from tests.bench.test_study import STUDY


class CountingComponents(Components):
    """Parsers that count the methods that they check."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    def check(self, section: str, spec: Any) -> None:
        super().check(section, spec)
        if section == "model":
            self.methods.append(spec["class_path"].rpartition(".")[2])


def study_of(folder: Path, **methods: Any) -> Study:
    raw = deepcopy(STUDY)
    selector = {"class_path": "tasks.ByClass", "init_args": {"classes": 1}}
    for task in raw["tasks"].values():
        task["init_args"] = {"selector": selector}
    raw["tasks"]["random"]["methods"] = methods
    (folder / "study.yaml").write_text(yaml.safe_dump({**raw, "output": str(folder / "out")}))
    return read_study(folder / "study.yaml")


def test_tasks_between_which_only_numbers_differ_are_checked_once(tmp_path: Path) -> None:
    components = CountingComponents()
    study = study_of(tmp_path, SSD={"model": {"init_args": {"alpha": 2.0}}})
    study.tasks["class"]["methods"] = {"SSD": {"model": {"init_args": {"alpha": 9.0}}}}  # type: ignore[index]
    check_components(study, components)
    assert sorted(components.methods) == ["FineTune", "Retrain", "SSD", "Train"]


def test_an_override_on_one_task_is_checked(tmp_path: Path) -> None:
    study = study_of(tmp_path, SSD={"model": {"init_args": {"alhpa": 2.0}}})
    with pytest.raises(InputError, match=r"methods\.SSD: .*alhpa"):
        check_components(study, Components())


def test_ranges_of_a_search_are_checked_where_it_is_asked_for(tmp_path: Path) -> None:
    study = study_of(tmp_path, SSD={"search": {"alhpa": {"low": 1.0, "high": 2.0}}})
    check_components(study, Components())
    with pytest.raises(InputError, match=r"methods\.SSD\.search\.alhpa: .*alhpa"):
        check_components(study, Components(), with_search=True)


def test_the_cure_of_a_missing_argument_is_an_option_of_the_study(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    study.tasks["class"]["init_args"]["selector"] = {"class_path": "tasks.ByClass"}
    cure = r"give --set tasks\.class\.selector\.classes=VALUE\.$"
    with pytest.raises(InputError, match=cure):
        check_components(study, Components())


def test_data_that_cannot_be_read_are_named_by_their_task() -> None:
    def make(task: str, seeds: Seeds) -> Any:
        raise InputError("there is no folder.")

    with pytest.raises(InputError, match=r"tasks\.a: there is no folder\."):
        check_data(["a"], [Seeds(0, 0, 0)], make)
