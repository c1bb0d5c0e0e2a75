"""Resuming: a run that was stopped and taken up again ends with the weights of one that was not,
bit for bit.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from mu.backbones import Classifier
from mu.core.lr import OneCycle
from mu.core.module import UnlearningModule
from mu.data.plan import DataPlan, Forget, Phases, Retain, plan_steps
from mu.methods import SSD, FineTune, RandomLabel
from mu.utils.errors import InputError
from tests.support.helpers import Snapshot, State, classifier, different, digits, fit, weights

ADAM = {"optimizer": lambda params: torch.optim.Adam(params, lr=0.003)}


def agrees(
    make: Callable[[], UnlearningModule],
    file: Path,
    epoch: int,
    batch: int,
    epochs: int = 3,
    **changes: Any,
) -> UnlearningModule:
    """Fit; fit with a checkpoint after one batch; fit new objects from that checkpoint: all three
    end alike.
    """
    alone = fit(make(), epochs=epochs, **changes)
    saving = fit(make(), epochs=epochs, callbacks=[Snapshot(file, epoch, batch)], **changes)
    assert different(weights(alone), weights(saving)) == [], "writing a checkpoint changed the run"
    resumed = fit(make(), epochs=epochs, ckpt_path=file, **changes)
    assert resumed.trainer.global_step == alone.trainer.global_step
    assert different(weights(alone), weights(resumed)) == []
    return resumed


@pytest.mark.parametrize(("epoch", "batch"), [(0, 0), (0, 3), (1, 1), (2, 2), (2, 3)], ids=str)
def test_resume_from_any_step(
    epoch: int, batch: int, originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when the loader starts its epoch again, skips a batch, or when a finished run is called
    one that moved nothing.
    """
    agrees(
        lambda: FineTune(classifier(originals["classifier"]), **ADAM),
        tmp_path / "x.ckpt",
        epoch,
        batch,
    )


@pytest.mark.parametrize("norm", ["train", "eval", "recalibrate"])
def test_the_mode_of_batch_norm_is_set_again(
    norm: Any, originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when the mode is set at the start of an epoch only: Lightning does not call that hook
    when it resumes inside one.
    """
    agrees(
        lambda: FineTune(classifier(originals["classifier"]), norm=norm, **ADAM),
        tmp_path / "x.ckpt",
        1,
        1,
    )


class EpochEnds(FineTune):
    """Shrinks its weights at the end of every epoch, and more at the end of the last."""

    def on_train_epoch_end(self) -> None:
        with torch.no_grad():
            for _, weight in self.trainable():
                weight.mul_(0.5 if self.is_last_epoch() else 0.9)
        super().on_train_epoch_end()


@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize("cls", [EpochEnds, FineTune])
def test_resume_after_the_last_batch_of_an_epoch(
    epoch: int, cls: Any, originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when what belongs to the end of the epoch is lost: Lightning goes on with the next
    epoch at once.
    """
    agrees(
        lambda: cls(classifier(originals["classifier"]), norm="recalibrate", **ADAM),
        tmp_path / "x.ckpt",
        epoch,
        3,
    )


class SavesAfterValidation(Callback):
    """A checkpoint at the end of an epoch's validation, which Lightning runs before the epoch
    ends.
    """

    def __init__(self, file: Path, epoch: int) -> None:
        self.file = file
        self.epoch = epoch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.file)


@pytest.mark.parametrize("epoch", [0, 2])
def test_resume_after_the_validation_of_an_epoch(
    epoch: int, originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when the end of the epoch is lost, or comes twice."""

    def run(**changes: Any) -> State:
        module = EpochEnds(classifier(originals["classifier"]), **ADAM)
        return weights(fit(module, digits(curves=["forget"]), 3, limit_val_batches=1.0, **changes))

    alone = run(callbacks=[SavesAfterValidation(tmp_path / "x.ckpt", epoch)])
    assert different(alone, run(ckpt_path=tmp_path / "x.ckpt")) == []


@pytest.mark.parametrize(("epoch", "batch"), [(0, 1), (1, 2)], ids=str)
def test_resume_with_a_schedule_of_the_learning_rate(
    epoch: int, batch: int, originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when asking Lightning for the number of steps sets up the loader before its state is
    restored.
    """

    def make() -> UnlearningModule:
        return FineTune(classifier(originals["classifier"]), scheduler=OneCycle(), **ADAM)

    agrees(make, tmp_path / "x.ckpt", epoch, batch)


def test_resume_with_a_scheduler_of_torch(originals: dict[str, State], tmp_path: Path) -> None:
    """Fails when the state of a scheduler is lost."""

    def make() -> UnlearningModule:
        scheduler = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.3)  # noqa: E731
        return FineTune(classifier(originals["classifier"]), scheduler=scheduler, **ADAM)

    agrees(make, tmp_path / "x.ckpt", 1, 1)


class Phased(RandomLabel):
    """RandomLabel whose weights tell at which epochs it was told to start."""

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        with torch.no_grad():
            for _, weight in self.trainable():
                weight.add_(0.001 * (1 + self.current_epoch))


@pytest.mark.parametrize(
    "plan",
    [
        Phases(Forget(epochs=1), Retain()),
        Phases(Forget(after=1), Retain()),
        Phases(Forget(), Retain(), Forget(after=2)),
    ],
    ids=["shorter", "longer", "later"],
)
@pytest.mark.parametrize(
    ("epoch", "batch"), [(0, 2), (0, 3), (0, 6), (1, 3), (1, 6), (2, 0)], ids=str
)
def test_resume_with_epochs_of_unequal_length(
    plan: DataPlan, epoch: int, batch: int, originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when lengths are those of epoch 0: longer epochs are cut short, and shorter ones never
    seem to end.
    """
    if batch < len(
        plan_steps(plan, epoch, {"forget": 24, "retain": 37}, {"forget": 10, "retain": 10}, 0)
    ):
        agrees(
            lambda: Phased(classifier(originals["classifier"]), plan=plan, **ADAM),
            tmp_path / "x.ckpt",
            epoch,
            batch,
        )


def test_resume_with_a_limit_on_steps(originals: dict[str, State], tmp_path: Path) -> None:
    """Fails when a run that counts steps instead of epochs is taken up at another place."""
    agrees(
        lambda: FineTune(classifier(originals["classifier"]), **ADAM),
        tmp_path / "x.ckpt",
        1,
        1,
        epochs=-1,
        max_steps=10,
    )


@pytest.mark.parametrize(("epoch", "batch"), [(0, 1), (1, 2)], ids=str)
def test_resume_with_accumulated_gradients(
    epoch: int, batch: int, originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when a run resumed at an optimizer step makes another number of them. (Between steps,
    half a gradient is lost.)
    """
    make = lambda: FineTune(classifier(originals["classifier"]), **ADAM)  # noqa: E731
    agrees(make, tmp_path / "x.ckpt", epoch, 2 * (batch // 2) + 1, accumulate_grad_batches=2)


def test_dropout_is_part_of_the_promise(tmp_path: Path) -> None:
    """Fails when dropout draws from a generator that no checkpoint holds."""

    def make() -> UnlearningModule:
        torch.manual_seed(5)
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10)
        )
        module = FineTune(Classifier(network=network), **ADAM)
        torch.seed()  # another state of the global generator in every run
        return module

    agrees(make, tmp_path / "x.ckpt", 1, 1)


def test_validation_does_not_change_the_run(originals: dict[str, State]) -> None:
    """Fails when a pass of the curves draws, or leaves the model in another mode."""
    make = lambda: FineTune(classifier(originals["classifier"]), norm="eval", **ADAM)  # noqa: E731
    watched = fit(
        make(),
        digits(curves=["forget", "validation"]),
        limit_val_batches=1.0,
        val_check_interval=1,
        num_sanity_val_steps=1,
    )
    assert set(watched.trainer.logged_metrics) >= {"forget/accuracy", "validation/loss"}
    assert different(weights(watched), weights(fit(make()))) == []


def test_loader_processes_do_not_change_the_run(
    originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when workers serve other batches, or batches that were prefetched count as served."""
    make = lambda: FineTune(classifier(originals["classifier"]), **ADAM)  # noqa: E731
    alone = fit(make())
    worked = fit(make(), digits(workers=1), callbacks=[Snapshot(tmp_path / "x.ckpt", 1, 1)])
    assert different(weights(alone), weights(worked)) == []
    assert (
        different(
            weights(alone), weights(fit(make(), digits(workers=1), ckpt_path=tmp_path / "x.ckpt"))
        )
        == []
    )


@pytest.mark.parametrize("batch", [0, 4])
def test_an_edit_stopped_in_its_pass_starts_again(
    batch: int, originals: dict[str, State], tmp_path: Path
) -> None:
    """Fails when the rest of the pass is taken for the whole: statistics are not part of a
    checkpoint.
    """

    def make() -> SSD:
        backbone = classifier(originals["classifier"])
        return SSD(backbone, alpha=1.0, all_batch_size=10, forget_batch_size=10)

    agrees(make, tmp_path / "x.ckpt", 0, batch, epochs=1)


def test_other_original_weights_are_refused(originals: dict[str, State], tmp_path: Path) -> None:
    """Fails when a run is continued with a reference that it did not begin with."""
    fit(
        FineTune(classifier(originals["classifier"]), **ADAM),
        callbacks=[Snapshot(tmp_path / "x.ckpt", 0, 1)],
    )
    with pytest.raises(InputError, match="original weights"):
        fit(FineTune(classifier(), **ADAM), ckpt_path=tmp_path / "x.ckpt")


def test_another_seed_is_refused(originals: dict[str, State], tmp_path: Path) -> None:
    """Fails when half a run is drawn from one seed and half from another; also where the first was
    left to its default.
    """
    fit(
        FineTune(classifier(originals["classifier"]), **ADAM),
        callbacks=[Snapshot(tmp_path / "x.ckpt", 0, 1)],
    )
    with pytest.raises(InputError, match="written with seed 0, but this run has seed 5"):
        fit(
            FineTune(classifier(originals["classifier"]), seed=5, **ADAM),
            ckpt_path=tmp_path / "x.ckpt",
        )


def test_resume_after_a_killed_process(originals: dict[str, State], tmp_path: Path) -> None:
    """Fails when a checkpoint is written in place, so that a kill at the wrong moment leaves half a
    file, or state stays in the process.
    """
    torch.save(originals["classifier"], tmp_path / "original.pt")
    script = textwrap.dedent("""
        import os, signal, sys, torch
        torch.set_num_threads(1)
        from lightning.pytorch.callbacks import ModelCheckpoint
        from mu.methods import RandomLabel
        from tests.support.helpers import Watch, classifier, fit
        folder = sys.argv[1]
        def kill(module, batch, batch_idx):
            if module.current_epoch == 1 and batch_idx == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        saver = ModelCheckpoint(
            folder,
            filename="{step}",
            every_n_train_steps=1,
            save_top_k=1,
            monitor="step",
            mode="max",
        )
        module = RandomLabel(classifier(torch.load(folder + "/original.pt")))
        fit(module, callbacks=[Watch(kill), saver])
    """)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (file,) = tmp_path.glob("*.ckpt")
    assert file.name == "step=10.ckpt"
    resumed = fit(RandomLabel(classifier(originals["classifier"])), ckpt_path=file)
    assert (
        different(weights(resumed), weights(fit(RandomLabel(classifier(originals["classifier"])))))
        == []
    )


def test_the_checkpoint_between_two_epochs(originals: dict[str, State], tmp_path: Path) -> None:
    """Fails when an epoch is repeated or left out at its boundary."""
    make = lambda: RandomLabel(classifier(originals["classifier"]), scheduler=OneCycle())  # noqa: E731
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", every_n_epochs=1, save_top_k=-1)
    alone = fit(make(), epochs=3, callbacks=[saver])
    for epoch in range(3):
        resumed = fit(make(), epochs=3, ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        assert different(weights(alone), weights(resumed)) == [], epoch


def test_a_finished_run_can_be_made_longer(originals: dict[str, State], tmp_path: Path) -> None:
    """Fails when more epochs from a finished run's checkpoint are others than those of a longer
    run.
    """
    make = lambda: FineTune(classifier(originals["classifier"]), **ADAM)  # noqa: E731
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", every_n_epochs=1, save_top_k=-1)
    fit(make(), epochs=2, callbacks=[saver])
    longer = fit(make(), epochs=3, ckpt_path=tmp_path / "epoch=1.ckpt")
    assert different(weights(longer), weights(fit(make(), epochs=3))) == []
