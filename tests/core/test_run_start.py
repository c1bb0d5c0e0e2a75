"""Run folders of a Trainer in Python: the same files as those of the command line."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

import mu as package
from callbacks import Accuracy, ResultsWriter
from mu.backbones import Classifier
from mu.core.run_start import LastCheckpoint, finished_fit
from mu.data.split import Split
from mu.methods import FineTune
from mu.metrics.run_results import RunResults
from mu.utils.errors import InputError
from tests.cli.conftest import Mu
from tests.cli.conftest import mu as mu
from tests.support.helpers import classifier, digits

SETTINGS: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "max_epochs": 1,
}


def fitted(run: str, **settings: object) -> Trainer:
    """Trainer of a fit in a run folder, with the recorder alone."""
    trainer = Trainer(
        default_root_dir=run,
        **{"callbacks": [ResultsWriter(), Accuracy()], **SETTINGS, **settings},
    )
    trainer.fit(FineTune(classifier(), seed=3), datamodule=digits())
    return trainer


def test_a_trainer_writes_the_run_folder_that_commands_read(mu: Mu) -> None:
    trainer = fitted("runs/a")
    names = {entry.name for entry in Path("runs/a").iterdir()}
    assert {"config.yaml", "split.json", "checkpoints", "fit.json"} <= names
    assert [file.name for file in Path("runs/a/checkpoints").iterdir()] == ["last.ckpt"]
    assert Split.load("runs/a/split.json").hash == trainer.datamodule.split.hash  # type: ignore[attr-defined]
    # 1. measured, resumed, exported, reported by the command line
    answer = mu("test", "--run", "runs/a")
    assert answer.code == 0, answer.err
    assert RunResults.load("runs/a").facts["epochs"] == 1
    words = ("fit", "--run", "runs/a", "--resume", "--trainer.max_epochs", "2")
    answer = mu(*words, "--model.optimizer.lr", "0.7")
    assert answer.code == 2 and "model.optimizer.lr 0.01, not 0.7" in answer.sentence
    answer = mu(*words)
    assert answer.code == 0, answer.err
    assert mu("test", "--run", "runs/a").code == 0
    assert mu("report", "runs/a").code == 0
    assert mu("export", "runs/a", "exported").code == 0
    # 2. the same weights as of one fit in Python
    fitted("runs/b", max_epochs=2)
    weights = [RunResults.load("runs/a").hashes["weights"]]
    assert mu("test", "--run", "runs/b").code == 0
    assert weights == [RunResults.load("runs/b").hashes["weights"]]


def test_checkpoints_of_a_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when a user's own are replaced, or when checkpoints are written though switched off."""
    monkeypatch.chdir(tmp_path)
    further = ModelCheckpoint(dirpath="mine", filename="{epoch}")
    callbacks = [ResultsWriter(), further]
    trainer = fitted("runs/a", callbacks=callbacks)
    types = [type(entry) for entry in trainer.checkpoint_callbacks]
    assert types == [ModelCheckpoint, LastCheckpoint]
    assert Path("mine/epoch=0.ckpt").is_file() and Path("runs/a/checkpoints/last.ckpt").is_file()
    fitted("runs/b", enable_checkpointing=False)
    assert not Path("runs/b/checkpoints").exists() and finished_fit(Path("runs/b")) is None
    fitted("runs/c", fast_dev_run=True)
    assert not Path("runs/c").exists()


def test_a_configuration_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    with pytest.raises(InputError, match="is not of a run, and this run would replace it"):
        fitted(str(tmp_path))
    assert (tmp_path / "config.yaml").read_text() == "mine: 1\n"


def test_results_of_weights_in_memory_do_not_count_for_the_checkpoint(tmp_path: Path) -> None:
    """Fails when a test of other weights than those of last.ckpt passes for a test of the run."""
    trainer = fitted(str(tmp_path))
    trainer.test(datamodule=digits(), verbose=False)
    measured = RunResults.load(tmp_path)
    other = Trainer(
        default_root_dir=str(tmp_path),
        callbacks=[ResultsWriter(), Accuracy()],
        **SETTINGS,
    )
    other.test(FineTune(classifier(), seed=3), datamodule=digits(), verbose=False)
    assert len(RunResults.load_all(tmp_path)) == 2
    assert RunResults.load(tmp_path) == measured


def test_a_tested_checkpoint_of_another_folder_is_linked(mu: Mu) -> None:
    """A run that is only measured, as a study's original, is a run folder too."""
    fitted("runs/a")
    trainer = Trainer(
        default_root_dir="runs/measured",
        callbacks=[ResultsWriter(), Accuracy()],
        **SETTINGS,
    )
    trainer.test(
        FineTune(classifier(), seed=3),
        datamodule=digits(),
        ckpt_path="runs/a/checkpoints/last.ckpt",
        verbose=False,
    )
    shutil.rmtree("runs/a")
    assert mu("test", "--run", "runs/measured").code == 0
    assert mu("export", "runs/measured", "exported").code == 0
    assert package.load("runs/measured").seed == 3


def test_a_live_object_is_named(mu: Mu) -> None:
    """A network of one's own is in no file; a schedule matters to a resume alone."""
    trainer = Trainer(
        default_root_dir="runs/a",
        callbacks=[ResultsWriter()],
        **SETTINGS,
    )
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    backbone = Classifier(network=network, num_classes=10, mean=[0.3], std=[0.4])
    trainer.fit(FineTune(backbone), datamodule=digits())
    answer = mu("test", "--run", "runs/a")
    assert answer.code == 2 and "an object as model.backbone.network" in answer.sentence
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=1)
    trainer = Trainer(
        default_root_dir="runs/b",
        callbacks=[ResultsWriter(), Accuracy()],
        **SETTINGS,
    )
    trainer.fit(FineTune(classifier(), scheduler=schedule), datamodule=digits())
    assert mu("test", "--run", "runs/b").code == 0
    answer = mu("fit", "--run", "runs/b", "--resume", "--trainer.max_epochs", "2")
    assert answer.code == 2 and "an object as model.scheduler" in answer.sentence


def test_a_resume_in_python_refuses_what_would_change_the_past(mu: Mu) -> None:
    """Of a run of the command line too, whose configuration has every default."""
    fitted("runs/a")
    answer = mu("fit", "--run", "runs/a", "--resume", "--trainer.max_epochs", "2")
    assert answer.code == 0, answer.err

    def resume(clip: float | None = None, **changes: Any) -> None:
        trainer = Trainer(
            default_root_dir="runs/a",
            callbacks=[ResultsWriter()],
            gradient_clip_val=clip,
            **{**SETTINGS, "max_epochs": 3},
        )
        trainer.fit(
            FineTune(classifier(), seed=3, **changes),
            datamodule=digits(),
            ckpt_path="runs/a/checkpoints/last.ckpt",
            weights_only=True,
        )

    sgd = partial(torch.optim.SGD, lr=0.5, momentum=0.9)
    with pytest.raises(InputError, match=r"trained with model.optimizer.lr 0\.01, not 0\.5"):
        resume(optimizer=sgd)
    with pytest.raises(InputError, match=r"trainer.gradient_clip_val None, not 1\.0"):
        resume(clip=1.0)
    resume()
    assert finished_fit(Path("runs/a")) is not None
