"""Configurations that a study names stand for their content, below the study's own entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mu.bench.study_presets import with_presets
from mu.utils.errors import InputError
from mu.utils.text_files import read_yaml

CONFIGS = Path(__file__).parents[2] / "configs"
PATH = Path("study.yaml")


def content(name: str) -> dict[str, Any]:
    return read_yaml(CONFIGS / f"{name}.yaml")


def test_method_has_the_model_and_the_trainer_of_its_preset() -> None:
    preset = content("method/scrub")
    study = with_presets(PATH, {"methods": {"SCRUB": "method/scrub"}})
    assert study["methods"]["SCRUB"] == {"model": preset["model"], "trainer": preset["trainer"]}


def test_entries_of_the_study_lie_over_those_of_the_preset() -> None:
    entry = {"preset": "method/salun", "model": {"init_args": {"norm": "eval"}}, "skip": "no"}
    study = with_presets(PATH, {"methods": {"SalUn": entry}})
    assert study["methods"]["SalUn"] == {
        "model": {"class_path": "mu.methods.SalUn", "init_args": {"norm": "eval"}},
        "trainer": {"max_epochs": 10},
        "skip": "no",
    }


def test_task_has_the_data_of_its_preset_and_the_study_its_backbone() -> None:
    preset = content("task/digits_class")
    study = with_presets(PATH, {"tasks": {"three": "task/digits_class"}})
    assert study["tasks"]["three"] == preset["data"]
    assert study["backbone"] == preset["model"]["init_args"]["backbone"]
    classifier = {"class_path": "mu.backbones.Classifier"}
    study = with_presets(PATH, {"tasks": {"three": "task/digits_class"}, "backbone": classifier})
    assert study["backbone"] == classifier


def test_suites_of_a_configuration_stand_in_its_place_each_once() -> None:
    suites = ["suite/tofu", "suite/memorisation", "callbacks.Accuracy"]
    listed = with_presets(PATH, {"suites": suites})["suites"]
    paths = [suite if isinstance(suite, str) else suite["class_path"] for suite in listed]
    assert paths.count("callbacks.Cost") == 1 and paths[-1] == "callbacks.Accuracy"
    assert {"callbacks.TOFU", "callbacks.Memorisation"} <= set(paths)


def test_batch_size_of_forget_samples_of_a_preset_is_the_methods_own() -> None:
    tasks = {"one": {"class_path": "tasks.ShapesConcept", "init_args": {"batch_size": 32}}}
    study = with_presets(PATH, {"tasks": tasks, "methods": {"SFD": "method/sfd_small"}})
    assert study["methods"]["SFD"]["forget_batch_size"] == 8


@pytest.mark.parametrize(
    ("study", "sentence"),
    [
        ({"methods": {"A": "method/saln"}}, "methods.A.preset names .* did you mean method/salun"),
        ({"methods": {"A": "task/digits_class"}}, "holds no method"),
        ({"methods": {"A": {"preset": 3}}}, "methods.A.preset is 3"),
        ({"tasks": {"a": "method/salun"}}, "holds no task"),
        ({"suites": ["suite/tofo"]}, "did you mean suite/tofu"),
        ({"suites": ["method/salun"]}, "holds no suite"),
        (
            {
                "tasks": {"a": {"class_path": "tasks.Shapes", "init_args": {"batch_size": 2}}},
                "methods": {"SFD": "method/sfd_small"},
            },
            "sets the task's batch_size to 32",
        ),
        (
            {"tasks": {"a": "task/digits_class", "b": "task/authors_forget"}},
            "different backbones",
        ),
    ],
)
def test_configuration_that_cannot_stand_there_is_refused(
    study: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        with_presets(PATH, study)
