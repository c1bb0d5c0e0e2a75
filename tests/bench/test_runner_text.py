"""A study of language models with an original and an oracle that are there already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mu.bench.search import search
from mu.bench.study import Study
from mu.bench.study_file import read_study
from mu.cli.bench import main
from mu.metrics.run_results import RunResults
from mu.utils.errors import InputError
from tests.support.doubles_text import folder

TOFU = {
    "class_path": "callbacks.TOFU",
    "init_args": {"kept": ["retain"], "choices": [], "max_new_tokens": 3},
}
STUDY: dict[str, Any] = {
    "seeds": [0],
    "original": "given",
    "oracle": {"init_seed": 3},
    "backbone": {"class_path": "mu.backbones.CausalLM", "init_args": {}},
    "tasks": {"people": {"class_path": "tests.support.doubles_text.People", "init_args": {}}},
    "methods": {
        "NPO": {
            "model": {
                "class_path": "mu.methods.NPO",
                "init_args": {
                    "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
                },
            },
            "search": {"optimizer.lr": {"low": 0.01, "high": 0.1}},
        }
    },
    "suites": [TOFU, "callbacks.Cost"],
    "trainer": {"accelerator": "cpu", "max_epochs": 1},
}


def study(place: Path, **changes: Any) -> Path:
    """The study's file."""
    content = {**STUDY, "output": str(place / "out"), **changes}
    content["backbone"] = {**content["backbone"], "init_args": {"model": folder()}}
    file = place / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def records(out: Path) -> dict[str, RunResults]:
    """By method."""
    runs = json.loads((out / "study.json").read_text())["runs"]
    return {name.split("/")[1]: RunResults.load(out / path) for name, path in runs.items()}


def test_forget_quality_is_measured_against_the_given_oracle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when the original is measured before the oracle, or without it; or when the oracle is
    the original under another name.
    """
    file = study(tmp_path)
    assert main(["-c", str(file)]) == 0
    results = records(tmp_path / "out")
    assert set(results) == {"oracle", "original", "NPO"}
    assert results["oracle"].hashes["weights"] != results["original"].hashes["weights"]
    assert all(record.has("MU") for record in results.values())
    assert results["oracle"].value("FQ") == 1
    assert results["original"].value("FQ") < 1 and results["NPO"].has("FQ")
    capsys.readouterr()
    assert main(["-c", str(file)]) == 0
    assert "3 reused" in capsys.readouterr().out


def searched(place: Path, **given: Any) -> Study:
    return read_study(
        study(
            place, search={"trials": 1, "seeds": [1000], "evaluated": ["forget", "retain"], **given}
        )
    )


def test_a_search_without_an_oracle_of_its_own_needs_an_objective(tmp_path: Path) -> None:
    """Fails when the reported oracle judges the search, whose forget set is another."""
    with pytest.raises(InputError, match="objective"):
        search(searched(tmp_path))


def test_a_search_forgets_what_it_is_told_to(tmp_path: Path) -> None:
    """Fails when `data` does not reach the task, or the oracle of the reported forget set is
    measured too.
    """
    assert search(searched(tmp_path, objective=["MU"], data={"batch_size": 3}), debug=True) == 0
    runs = [
        json.loads(file.read_text()) for file in (tmp_path / "out" / "search").rglob("run.json")
    ]
    assert len(runs) == 1 and "oracle" not in runs[0]["job"]
    split = next((tmp_path / "out" / "search").rglob("config.yaml"), None)
    assert split is None or "batch_size: 3" in split.read_text()
    assert (tmp_path / "out" / "search" / "found.yaml").is_file()
