"""Tests of what callbacks can monitor, and of trainer settings that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    WeightAveraging,
)

from mu.methods import FineTune, NegGradPlus, SalUn
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
