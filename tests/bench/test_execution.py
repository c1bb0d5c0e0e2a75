"""Runs of a study are run folders as any other, wherever a command takes one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mu.bench.report.runs import collect
from mu.bench.runner import Bench
from mu.bench.study_file import read_study
from mu.metrics.run_results import RunResults
from tests.bench.small_study import record, written
from tests.cli.conftest import CONFIGS, FIT, Mu
from tests.cli.conftest import mu as mu

SUITE = ("-c", str(CONFIGS / "suite" / "accuracy.yaml"))


def test_every_run_of_a_study_is_tested_exported_resumed_and_named_as_weights(
    mu: Mu, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished / "out", tmp_path / "out")
    runs = {name: next((tmp_path / "out" / name).iterdir()) for name in ("originals",)}
    for method in ("original", "oracle", "FineTune"):
        runs[method] = next((tmp_path / "out" / "random" / method).iterdir())
    # 1. the same files
    for name, run in runs.items():
        files = {entry.name for entry in run.iterdir()}
        assert {"config.yaml", "split.json", "checkpoints", "fit.json"} <= files, (name, files)
    # 2. the commands; the study's numbers and names stay
    before = RunResults.load(runs["FineTune"])
    for name in ("original", "FineTune"):
        answer = mu(
            "test", "--run", str(runs[name]), "-c", str(CONFIGS / "suite/quantisation.yaml")
        )
        assert answer.code == 0, answer.err
    after = RunResults.load(runs["FineTune"])
    assert after.has("quantisation") and after.value("avg_gap") == before.value("avg_gap")
    assert (after.method, after.seeds, after.hashes) == (before.method, before.seeds, before.hashes)
    methods = {run.method for run in collect([tmp_path / "out"]).runs}
    assert methods == {"original", "oracle", "FineTune", "SSD"}
    for index, run in enumerate(runs.values()):
        answer = mu("export", str(run), f"exported{index}")
        assert answer.code == 0, answer.err
    answer = mu(
        *(*FIT, "--run", "runs/a", "--trainer.max_epochs", "1"),
        *("--model.backbone.weights", str(runs["originals"])),
        *("--model.backbone.mean", "null", "--model.backbone.std", "null"),
    )
    assert answer.code == 0, answer.err
    # 3. alone, elsewhere
    shutil.copytree(runs["FineTune"], tmp_path / "copy")
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    answer = mu("export", str(tmp_path / "copy"), "exported")
    assert answer.code == 0, answer.err
    assert "UA" in Path("exported/README.md").read_text()


def test_callbacks_of_a_trainer_work_beside_the_suites(tmp_path: Path) -> None:
    checkpoint = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"dirpath": str(tmp_path / "extra"), "filename": "second"},
    }
    method = {
        "model": {"class_path": "mu.methods.SSD"},
        "trainer": {"max_epochs": 1, "callbacks": [checkpoint]},
    }
    file = written(tmp_path, methods={"SSD": method}, oracle="none", gap=None)
    study = read_study(file)
    bench = Bench(study, debug=True)
    bench.check()
    for job in study.jobs():
        bench.run(job)
    assert [entry.name for entry in (tmp_path / "extra").iterdir()] == ["second.ckpt"]
    assert record(tmp_path, "SSD").has("UA")
