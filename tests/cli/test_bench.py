"""`mu bench`: the whole study is checked before the first run; failures leave a good page."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from mu.cli.bench import main
from mu.cli.main import main as command
from mu.utils.files import read_json
from tests.bad_input.conftest import table

STUDY: dict[str, Any] = {
    "seeds": [0, 1],
    "backbone": {
        "class_path": "Classifier",
        "init_args": {
            "name": "resnet8_cifar",
            "in_channels": 1,
            "mean": [0.3],
            "std": [0.4],
            "options": {"width": 4},
        },
    },
    "recipe": {"trainer": {"max_epochs": 1}},
    "tasks": {
        name: {
            "class_path": "Digits",
            "init_args": {
                "train_size": 60,
                "validation_size": 40,
                "selector": {"class_path": "RandomFraction", "init_args": {"fraction": fraction}},
            },
        }
        for name, fraction in (("few", 0.1), ("many", 0.4))
    },
    "methods": {
        "SSD": "method/ssd",
        "FineTune": {"model": {"class_path": "FineTune"}, "trainer": {"max_epochs": 1}},
    },
    "suites": ["Accuracy", "Cost"],
    "trainer": {"accelerator": "cpu"},
}


def study_file(folder: Path, **changes: Any) -> str:
    file = folder / "study.yaml"
    study = {**deepcopy(STUDY), "output": str(folder / "out"), **changes}
    file.write_text(yaml.safe_dump(study))
    return str(file)


def test_check_says_what_would_run_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = deepcopy(STUDY["tasks"])
    tasks["many"]["methods"] = {"SSD": {"skip": "too many"}}
    assert main(["--check", study_file(tmp_path, tasks=tasks)]) == 0
    text = capsys.readouterr().out
    assert "2 tasks, 2 methods, 2 seeds" in text
    rows = [line.strip().split(maxsplit=1) for line in text.splitlines()]
    # both tasks share a training set
    for row in (["2", "originals to train"], ["4", "oracles"], ["6", "unlearned models"]):
        assert row in rows
    assert "left out: many · SSD: too many" in text
    assert [file.name for file in tmp_path.iterdir()] == ["study.yaml"]


REFUSED = [
    ("Accuracy", {"suites": ["Acuracy"]}, "", "Acuracy.*did you mean Accuracy"),
    (
        "suite/classification",
        {"suites": ["suite/clasification"]},
        "",
        "did you mean suite/classification",
    ),
    ("method/ssd", {"methods": {"SSD": "method/sdd"}}, "", "did you mean method/ssd"),
    ("SSD", {"methods": {"SSD": {"model": {"class_path": "SDD"}}}}, "", "SDD.*did you mean SSD"),
    ("methods.SSD.alhpa", {}, "methods.SSD.alhpa=3", "SSD takes no 'alhpa'; did you mean alpha"),
    (
        "methods.FineTune.trainer.max_epoch",
        {},
        "methods.FineTune.trainer.max_epoch=3",
        "did you mean max_epochs",
    ),
    ("tasks.few.train_sise", {}, "tasks.few.train_sise=3", "did you mean train_size"),
    ("tasks.few.train_size", {}, "tasks.few.train_size=100000", "train"),
    (
        "methods.SSD.search",
        {},
        "methods.SSD.search={alhpa: {low: 1, high: 2}}",
        "methods.SSD.search.alhpa",
    ),
    (
        "methods.SSD.search",
        {},
        "methods.SSD.search={alpha: {low: 3, high: 2}}",
        "low 3 above high 2",
    ),
    (
        "methods.SSD.search",
        {},
        "methods.SSD.search={alpha: {low: 0, high: 2, log: true}}",
        "greater than 0",
    ),
    (
        "recipe.model.optimiser",
        {},
        "recipe.model.optimiser=SGD",
        "recipe.model.*did you mean optimizer",
    ),
    (
        "recipe.modle",
        {},
        "recipe.modle={}",
        "recipe has the unknown key 'modle'; did you mean model",
    ),
    (
        "search.trails",
        {},
        "search.trails=3",
        "search has the unknown key 'trails'; did you mean trials",
    ),
    ("oracle", {}, "oracle={name: resnet8_cifar, nothing: 3}", "oracle.*takes no 'nothing'"),
    (
        "backbone.weights",
        {},
        "backbone.weights=missing.safetensors",
        "backbone.weights.*missing.safetensors",
    ),
    (
        "trainer.callbacks",
        {},
        "trainer.callbacks=[callbacks.Cost]",
        "callbacks has the suite callbacks.Cost; write it under",
    ),
    ("suites+", {}, "suites+=Accuracy", "suite callbacks.Accuracy stands twice"),
    ("suites+", {}, "suites+={class_path: callbacks.Detection}", "Detection"),
]


@pytest.mark.parametrize(("changes", "option", "sentence"), table(REFUSED, fast=6))
def test_check_refuses_what_would_stop_the_study_later(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    option: str,
    sentence: str,
) -> None:
    options = ["--set", option] if option else []
    assert command(["bench", "--check", study_file(tmp_path, **changes), *options]) == 2
    error = capsys.readouterr().err
    assert re.search(sentence, " ".join(error.split())), error
    assert len(error.strip().splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["study.yaml"]


def test_data_of_every_task_are_read_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = deepcopy(STUDY["tasks"])
    tasks["many"]["init_args"]["train_size"] = 100_000
    assert command(["bench", study_file(tmp_path, tasks=tasks)]) == 2
    assert "tasks.many: " in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["study.yaml"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study that has run."""
    folder = tmp_path_factory.mktemp("study")
    assert main([study_file(folder), "--tasks", "few", "--seeds", "0"]) == 0
    return folder


def test_failure_is_printed_once_and_the_page_says_which_run_is_missing(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = ["--tasks", "few", "--seeds", "0"]
    before = read_json(finished / "out/study.json")["runs"]
    failing = ["--set", "methods.FineTune.optimizer.lr=1e30"]
    assert main([study_file(finished), *part, *failing]) == 1
    text = capsys.readouterr().out
    assert text.count("few · FineTune · seed0:") == 1
    assert len(re.findall("^failed ", text, re.M)) == 1
    page = (finished / "out/report.html").read_text()
    assert "1 run is missing" in page and "few · FineTune · seed0</strong>" in page
    # the result from before stays, because original and oracle are the same
    assert read_json(finished / "out/study.json")["runs"] == before
    assert "the tables show the run before it" in page


def test_report_that_cannot_be_made_leaves_the_last_page_after_a_line_a_run(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mu.bench import report
    from mu.utils.errors import InputError

    def refuse(*_: Any, **__: Any) -> None:
        raise InputError("runs cannot be compared.")

    monkeypatch.setattr(report, "write", refuse)
    before = (finished / "out/report.html").read_bytes()
    assert main([study_file(finished), "--tasks", "few", "--seeds", "0"]) == 1
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if "few ·" in line]
    assert all(re.match(r"(started|ran|measured|reused|resumed) few · ", line) for line in lines)
    assert any(line.startswith("reused few · SSD · seed0; ") for line in lines)
    assert "There is no new report: runs cannot be compared." in text
    assert "report.html is still that of the last call." in text
    assert (finished / "out/report.html").read_bytes() == before


def test_interrupted_study_says_how_to_go_on_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mu.bench.executors.serial import Serial

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Serial, "execute", interrupt)
    assert command(["bench", study_file(tmp_path), "--tasks", "few", "--seeds", "0"]) == 130
    error = capsys.readouterr().err
    assert "0 of 5 runs done" in error and f"mu report {tmp_path / 'out'} shows" in error
    missing = read_json(tmp_path / "out/study.json")["missing"]
    assert set(missing) == {
        f"few/{name}/seed0" for name in ("original", "oracle", "SSD", "FineTune")
    }
