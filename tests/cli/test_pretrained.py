"""`mu test MODEL`: models that mu did not train are measured without a fit, in a run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mu.core.checkpoint import load
from mu.core.pretrained_model import PretrainedModel
from mu.metrics.run_results import RunResults
from mu.utils.weights import weights_hash
from tests.cli.conftest import Mu
from tests.support.helpers import classifier

SUITE = """
trainer:
  callbacks+:
    - class_path: callbacks.Accuracy
"""
ATTACK = """
trainer:
  callbacks+:
    - class_path: callbacks.Membership
"""
TEXTS = """
data:
  class_path: tasks.QuestionAnswer
  init_args: {forget: forget.jsonl, retain: retain.jsonl, max_length: 64}
model:
  init_args:
    backbone: {class_path: mu.backbones.CausalLM, init_args: {model: data/model, dtype: float32}}
trainer:
  callbacks+:
    - class_path: callbacks.QuestionAnswering
      init_args: {max_new_tokens: 4, holdout: null}
"""
MEASURE = ("-c", "task.yaml", "-c", "silent.yaml", "-c", "suite.yaml")


@pytest.fixture
def theirs(mu: Mu, tmp_path: Path) -> str:
    """A file of weights from elsewhere, and the suites' files."""
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "attack.yaml").write_text(ATTACK)
    model: Any = classifier(init_seed=5, options={"width": 4})
    torch.save({"state_dict": model.network.body.state_dict()}, tmp_path / "theirs.pt")
    return "theirs.pt"


def body_hash(model: Any) -> str:
    """Hash of a classifier's weights without its normalisation."""
    return weights_hash(model.network.body)


def accuracy(folder: str) -> float:
    return RunResults.load(folder).value("UA")


def test_a_file_is_measured_under_its_own_name(mu: Mu, theirs: str, tmp_path: Path) -> None:
    answer = mu("test", theirs, *MEASURE)
    assert answer.code == 0, answer.err
    assert "run folder: runs/theirs" in answer.out
    record = RunResults.load("runs/theirs")
    assert record.method == "theirs"
    expected = torch.load(tmp_path / theirs, weights_only=True)["state_dict"]
    assert body_hash(load("runs/theirs").served()) == weights_hash(expected)
    report = mu("report", "runs/theirs")
    assert report.code == 0 and "theirs" in (tmp_path / "runs/theirs/report.html").read_text()


def test_its_folder_is_a_run_folder_as_any_other(mu: Mu, theirs: str, tmp_path: Path) -> None:
    """Another suite, weights of a fit, an export, and an oracle, after the file is gone."""
    assert mu("test", theirs, *MEASURE).code == 0
    before = accuracy("runs/theirs")
    (tmp_path / theirs).unlink()
    answer = mu("test", "--run", "runs/theirs", "-c", "attack.yaml")
    assert answer.code == 0, answer.err
    record = RunResults.load("runs/theirs")
    assert record.value("UA") == before and record.has("MIA")
    assert mu("export", "runs/theirs", "exported").code == 0
    words = ("-c", "task.yaml", "-c", "method.yaml", "-c", "silent.yaml")
    fit = mu("fit", *words, "--model.backbone.weights", "runs/theirs", "--run", "runs/tuned")
    assert fit.code == 0, fit.err


def test_it_works_as_an_oracle(mu: Mu, theirs: str, tmp_path: Path) -> None:
    both = (*MEASURE, "-c", "attack.yaml")
    # the model may stand behind the options
    words = (*both, "--trainer.limit_test_batches", "1.0", theirs, "--run", "runs/oracle")
    assert mu("test", *words).code == 0
    (tmp_path / "gap.yaml").write_text(
        "trainer:\n  callbacks+:\n    - class_path: callbacks.RetrainGap\n"
        "      init_args: {oracle: runs/oracle, metrics: [UA, RA, TA]}\n"
    )
    shutil.copy(theirs, "copy.pt")
    answer = mu("test", "copy.pt", *both, "-c", "gap.yaml")
    assert answer.code == 0, answer.err
    assert RunResults.load("runs/copy").value("gap/UA") == 0


def test_an_exported_folder_brings_its_own_architecture(mu: Mu, theirs: str) -> None:
    """The task's configuration has another width and another normalisation."""
    assert mu("test", theirs, *MEASURE).code == 0
    assert mu("export", "runs/theirs", "exported").code == 0
    task = Path("task.yaml")
    task.write_text(task.read_text().replace("width: 4", "width: 8").replace("0.3053", "0.9"))
    answer = mu("test", "exported", *MEASURE)
    assert answer.code == 0, answer.err
    assert accuracy("runs/exported") == accuracy("runs/theirs")


def test_a_language_model_leaves_its_weights_where_they_are(mu: Mu, tmp_path: Path) -> None:
    rows = [{"question": f"what is {n} ?", "answer": f"it is {n}"} for n in ("a", "b", "c", "d")]
    for name, part in {"forget": rows[:2], "retain": rows[2:]}.items():
        lines = "\n".join(json.dumps(row) for row in part)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    (tmp_path / "texts.yaml").write_text(TEXTS)
    answer = mu("test", "embedded:authors", "-c", "texts.yaml", "-c", "silent.yaml")
    assert answer.code == 0, answer.err
    record = RunResults.load("runs/authors")
    assert record.method == "authors" and record.value("perplexity/retain") > 1
    assert "weights" not in record.facts
    size = (tmp_path / "runs/authors/checkpoints/last.ckpt").stat().st_size
    assert size < 100_000, "the checkpoint holds weights that the folder has"
    assert isinstance(load("runs/authors"), PretrainedModel)


def test_its_predictions_and_scores_need_no_fit_either(mu: Mu, theirs: str) -> None:
    words = (theirs, "-c", "task.yaml", "-c", "silent.yaml")
    scores = mu("validate", *words, "--trainer.limit_val_batches", "1.0")
    assert scores.code == 0 and "forget/accuracy" in scores.out, scores.err
    assert not Path("runs").exists()
    answer = mu("predict", *words)
    assert answer.code == 0, answer.err
    assert Path("runs/theirs/predictions.safetensors").is_file()


def test_a_run_folder_as_model_is_the_run(mu: Mu, theirs: str) -> None:
    assert mu("test", theirs, *MEASURE).code == 0
    answer = mu("test", "runs/theirs", "-c", "attack.yaml")
    assert answer.code == 0, answer.err
    assert RunResults.load("runs/theirs").has("MIA")
    refused = mu("test", "runs/theirs", "-c", "attack.yaml", "--run", "runs/other")
    assert (refused.code, Path("runs/other").exists()) == (2, False)
    assert "belongs to the run runs/theirs" in refused.sentence


def test_another_model_of_the_same_name_is_not_mixed_in(mu: Mu, theirs: str) -> None:
    assert mu("test", theirs, *MEASURE).code == 0
    Path("elsewhere").mkdir()
    shutil.copy(theirs, "elsewhere/theirs.pt")
    answer = mu("test", "elsewhere/theirs.pt", *MEASURE)
    assert answer.code == 2
    assert "runs/theirs holds another run (its model.backbone.weights is" in answer.sentence
    assert "give another folder with --run" in answer.sentence


def test_a_changed_file_is_measured_anew(mu: Mu, theirs: str, tmp_path: Path) -> None:
    """The folder's checkpoint and results are those of the weights that the file has now."""
    assert mu("test", theirs, *MEASURE).code == 0
    model: Any = classifier(init_seed=6, options={"width": 4})
    torch.save({"state_dict": model.network.body.state_dict()}, tmp_path / theirs)
    assert mu("test", theirs, *MEASURE).code == 0
    assert body_hash(load("runs/theirs").served()) == body_hash(model)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("test", "missing.pt", *MEASURE), "there is no model missing.pt; give a folder"),
        (
            ("test", "theirs.pt", *MEASURE, "-c", "method.yaml"),
            "theirs.pt is measured as it is, and mu.methods.FineTune is a method",
        ),
        (
            ("test", "theirs.pt", *MEASURE, "--model.backbone.weights", "other.pt"),
            "--model.backbone.weights names another model than theirs.pt",
        ),
        (
            ("test", "theirs.pt", *MEASURE, "--model.backbone.options.width", "8"),
            "theirs.pt holds ",
        ),
        (("fit", "theirs.pt", *MEASURE), "mu fit does not take 'theirs.pt'; the model to unlearn"),
        (("test", "theirs.pt", "-c", "suite.yaml", "--model.backbone", "Classifier"), "no task"),
        (
            ("test", "embedded:authors", *MEASURE),
            "embedded:authors is a transformers model, and the task's backbone is Classifier",
        ),
    ],
)
def test_what_cannot_be_measured_is_one_sentence_and_leaves_nothing(
    mu: Mu, theirs: str, words: tuple[str, ...], sentence: str
) -> None:
    answer = mu(*words)
    assert answer.code == 2
    assert sentence in answer.sentence
    assert not Path("runs").exists()
