"""A study from end to end, on the smallest real task."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from mu import bench
from mu.errors import InputError
from mu.results import RunRecord

STUDY = {
    "seeds": [0],
    "backbone": {"class_path": "mu.backbones.Classifier",
                 "init_args": {"name": "resnet8_cifar", "in_channels": 1, "mean": [0.3], "std": [0.4], "options": {"width": 4}}},
    "recipe": {"model": {"scheduler": {"class_path": "mu.lr.OneCycle"}}, "trainer": {"max_epochs": 2}},
    "tasks": {"random": {"class_path": "tasks.Digits", "init_args": {
        "train_size": 60, "validation_size": 40, "selector": {"class_path": "tasks.RandomFraction", "init_args": {"fraction": 0.2}}}}},
    "methods": {"FineTune": {"model": {"class_path": "mu.methods.FineTune"}, "trainer": {"max_epochs": 2}},
                "SSD": {"model": {"class_path": "mu.methods.SSD"}, "trainer": {"max_epochs": 1}}},
    "suites": ["callbacks.Accuracy", "callbacks.Membership", "callbacks.Cost"],
    "gap": {"class_path": "callbacks.RetrainGap"},
    "trainer": {"accelerator": "cpu"},
}


def written(folder: Path, **changes) -> Path:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "output": str(folder / "out"), **changes}))
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    assert bench.main(["-c", str(written(folder))]) == 0
    return folder


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "out" / "results.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_it_writes_results_for_original_oracle_and_methods(finished: Path) -> None:
    found = rows(finished)
    assert list(found) == ["original", "oracle", "FineTune", "SSD"]
    for row in found.values():
        assert {"task", "split_seed", "train_seed", "unlearn_seed", "UA", "RA", "TA", "MIA", "avg_gap", "seconds"} <= set(row)
        assert all(row[name] != "" for name in ("UA", "RA", "TA", "MIA", "avg_gap", "seconds"))
    assert float(found["oracle"]["avg_gap"]) == 0
    assert (finished / "out" / "report.html").stat().st_size > 10_000


def test_the_gap_is_the_mean_of_four_differences_to_the_oracle(finished: Path) -> None:
    found = rows(finished)
    for method in ("original", "FineTune", "SSD"):
        by_hand = sum(abs(float(found[method][name]) - float(found["oracle"][name])) for name in ("UA", "RA", "TA", "MIA")) / 4
        assert float(found[method]["avg_gap"]) == pytest.approx(by_hand, abs=1e-9)


def test_a_second_call_reuses_every_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when the key depends on anything that differs between two equal calls."""
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("results.json")}
    assert bench.main(["-c", str(finished / "study.yaml")]) == 0
    assert "5 reused" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in finished.rglob("results.json")}


def test_a_changed_argument_runs_anew_and_overwrites_nothing(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    study = written(tmp_path, methods={**STUDY["methods"], "SSD": {"model": {"class_path": "mu.methods.SSD", "init_args": {"alpha": 2.0}},
                                                                  "trainer": {"max_epochs": 1}}})
    assert bench.main(["-c", str(study)]) == 0
    assert "1 ran" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "random" / "SSD").iterdir())) == 2


def test_an_interrupted_run_is_resumed_and_ends_as_if_it_had_not_been(finished: Path, tmp_path: Path,
                                                                      capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when an unfinished folder is taken for a finished one, or is begun again over its checkpoint."""
    shutil.copytree(finished / "out", tmp_path / "out")
    folder = next((tmp_path / "out" / "random" / "FineTune").iterdir())
    state = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**state, "state": "running"}))
    before = RunRecord.load(folder)
    (folder / "results.json").unlink()
    assert bench.main(["-c", str(written(tmp_path))]) == 0
    assert "1 resumed" in capsys.readouterr().out
    assert RunRecord.load(folder).value("UA") == before.value("UA")


def test_a_failing_method_is_reported_and_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
    broken = {"model": {"class_path": "mu.methods.FineTune", "init_args": {"optimizer": still}}, "trainer": {"max_epochs": 1}}
    study = written(tmp_path, methods={"Broken": broken, **STUDY["methods"]})
    assert bench.main(["-c", str(study)]) == 1
    shown = capsys.readouterr().out
    assert "1 failed" in shown
    assert "moved no weight" in " ".join(shown.split())
    assert {"FineTune", "SSD"} <= set(rows(tmp_path))
    failed = json.loads((tmp_path / "out" / "study.json").read_text())["failed"]
    assert [entry["run"] for entry in failed] == ["random · Broken · seed0"]


def test_tasks_with_one_training_set_share_one_original(tmp_path: Path) -> None:
    one_class = {"class_path": "tasks.Digits", "init_args": {**STUDY["tasks"]["random"]["init_args"], "selector": {
        "class_path": "tasks.ByClass", "init_args": {"classes": 3}}}}
    study = written(tmp_path, tasks={**STUDY["tasks"], "class": one_class}, methods={"SSD": STUDY["methods"]["SSD"]})
    assert bench.main(["-c", str(study)]) == 0
    assert len(list((tmp_path / "out" / "originals").iterdir())) == 1


def test_a_search_looks_at_validation_with_seeds_of_its_own(tmp_path: Path) -> None:
    """Fails when the search evaluates the test part, or on a reported seed."""
    method = {**STUDY["methods"]["FineTune"], "search": {"optimizer.lr": {"low": 0.001, "high": 0.1, "log": True}}}
    study = written(tmp_path, methods={"FineTune": method}, search={"trials": 2, "seeds": [50, 51]})
    assert bench.main(["-c", str(study), "--search"]) == 0
    found = yaml.safe_load((tmp_path / "out" / "search" / "found.yaml").read_text())
    best = found["tasks"]["random"]["methods"]["FineTune"]
    assert 0.001 <= best["model"]["init_args"]["optimizer"]["init_args"]["lr"] <= 0.1
    assert best["found"]["trials"] == 2
    assert best["found"]["seconds"] > 0
    records = [RunRecord.load(file.parent) for file in (tmp_path / "out" / "search").rglob("results.json")]
    assert {record.seeds["split"] for record in records} == {50, 51}
    assert {result.split for record in records for result in record.results if result.metric == "TA"} == {"validation"}
    with pytest.raises(InputError, match="one of the reported seeds"):
        bench.main(["-c", str(study), "--search", "--seeds", "50"])


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--methods", "Nothing"], "no method 'Nothing'"), (["--tasks", "nothing"], "no task 'nothing'"),
    (["--seeds", "a,b"], "not a list of whole numbers"), (["--set", "seeds"], "has no value"),
])
def test_wrong_choices_are_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        bench.main(["-c", str(written(tmp_path)), *arguments])
    assert not (tmp_path / "out").exists()
