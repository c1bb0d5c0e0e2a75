"""Tests of what callbacks can monitor, and of trainer settings that are refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    WeightAveraging,
)

from mu.config.classes import find
from mu.core.trainer_checks import check_trainer, default_limits
from mu.methods import SSD, FineTune, NegGradPlus, SalUn
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import Snapshot, classifier, digits, fit


class _Recorder(EarlyStopping):
    """EarlyStopping that records what it monitors."""

    def __init__(self, monitor: str) -> None:
        super().__init__(monitor, patience=9)
        self.scores: list[float] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.scores.append(trainer.callback_metrics[self.monitor].item())


def test_a_training_loss_without_curves_can_be_monitored(tmp_path: Path) -> None:
    """Fails when only curves are logged at the end of an epoch, which a text task may lack."""
    stop = EarlyStopping("train/loss", patience=0, min_delta=1e9)
    best = ModelCheckpoint(tmp_path, monitor="train/loss", filename="best")
    module = fit(FineTune(causal_lm()), people(curves=[]), 9, callbacks=[stop, best])
    assert module.trainer.current_epoch == 2
    assert (tmp_path / "best.ckpt").is_file()


def test_a_monitored_loss_is_the_mean_of_the_epoch() -> None:
    """Fails when the last batch, or a logged step alone, passes for the epoch."""
    total, forget, retain = (_Recorder(f"train/{name}") for name in ("loss", "forget", "retain"))
    fit(NegGradPlus(classifier()), digits(), 2, callbacks=[total, forget, retain])
    sums = [a + b for a, b in zip(forget.scores, retain.scores, strict=True)]
    assert total.scores == pytest.approx(sums, rel=1e-5)
    assert total.scores[0] != total.scores[1]


def test_a_resumed_epoch_has_the_mean_of_all_its_batches(tmp_path: Path) -> None:
    """Fails when the batches before a resume are missing from a monitored loss."""
    uninterrupted, resumed = _Recorder("train/loss"), _Recorder("train/loss")
    snapshot = Snapshot(tmp_path / "middle.ckpt", epoch=0, batch=1)
    fit(FineTune(classifier()), digits(), 1, callbacks=[uninterrupted, snapshot])
    fit(
        FineTune(classifier()),
        digits(),
        1,
        ckpt_path=tmp_path / "middle.ckpt",
        callbacks=[resumed],
    )
    assert resumed.scores == uninterrupted.scores


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda: EarlyStopping("train/nothing"), "'train/nothing', which the fit does not log"),
        (lambda: ModelCheckpoint(monitor="my/own"), "'my/own', which the fit does not log"),
        (lambda: EarlyStopping("retain/loss"), "no curve of retain; add it with data.curves"),
        (lambda: BatchSizeFinder(), "BatchSizeFinder tries out steps"),
        (lambda: LearningRateFinder(), "LearningRateFinder tries out steps"),
        (lambda: WeightAveraging(), "would average the mask of SalUn"),
    ],
)
def test_callbacks_that_cannot_work_are_refused(callback: Any, message: str) -> None:
    """Fails when a callback ends a fit in a traceback, or alters the original before it."""
    with pytest.raises(InputError, match=message):
        fit(SalUn(classifier()), callbacks=[callback()], max_epochs=1)


@pytest.mark.parametrize("clip", [-0.5, float("nan")])
def test_a_negative_clip_is_refused(clip: float) -> None:
    """Fails when gradients are clipped to a negative norm, which turns their sign."""
    with pytest.raises(InputError, match=r"trainer\.gradient_clip_val is"):
        fit(FineTune(classifier()), gradient_clip_val=clip)


def test_the_thousand_epochs_of_lightning_are_never_silent() -> None:
    """Fails when a trainer without an end trains a hundred times as long, and nobody says so."""
    with pytest.warns(UserWarning, match=r"1000 epochs.*; that of SalUn is 10 epochs: Tr"):
        fit(SalUn(classifier()), epochs=1000, limit_train_batches=1, callbacks=[_Stop()])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*1000 epochs")
        fit(SSD(classifier()), epochs=1000)  # ends after its pass


class _Stop(Callback):
    """Stops a fit after its first batch."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = True


def test_default_lengths_are_those_of_the_presets() -> None:
    """Fails when a class and all of its presets train for different lengths."""
    lengths: dict[str, list[dict[str, int]]] = {}
    for file in (Path(__file__).parents[2] / "configs" / "method").glob("*.yaml"):
        preset = yaml.safe_load(file.read_text())
        limits = {key: value for key, value in preset["trainer"].items() if key.startswith("max_")}
        lengths.setdefault(preset["model"]["class_path"], []).append(limits)
    assert len(lengths) > 40
    for path, presets in lengths.items():
        method: Any = find(path)
        assert default_limits(method) in presets, path


def test_synchronised_batch_norm_on_a_cpu_names_what_to_do() -> None:
    """Fails when it ends in torch's traceback, after the ranks were started."""
    strategy = SimpleNamespace(_layer_sync=object(), root_device=torch.device("cpu"))
    trainer = SimpleNamespace(
        max_epochs=1, max_steps=-1, callbacks=[], strategy=strategy, world_size=2
    )
    method: Any = SimpleNamespace(trainer=trainer)
    with pytest.raises(InputError, match="sync_batchnorm works on GPUs alone; leave it out"):
        check_trainer(method, False)
