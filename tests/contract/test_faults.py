"""Contract of faults: a run stops before it does harm, with one sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from mu.backbones import Classifier
from mu.core.batch_norm import recalibrate
from mu.core.module import UnlearningModule
from mu.data.plan import Forget
from mu.methods import SSD, FineTune, RandomLabel
from mu.methods.components.substitutes import GivenByTask
from mu.utils.errors import InputError, RunError
from tests.contract.doubles import Bare, Breaks, Sees
from tests.support.helpers import (
    State,
    Watch,
    classifier,
    diabetes,
    digits,
    distance,
    fit,
    regressor,
    weights,
)


@pytest.mark.parametrize("norm", ["train", "eval"])
def test_a_fit_that_moves_no_weight_is_an_error(norm: Any) -> None:
    """Fails when moving statistics of batch norm pass for moving weights."""
    with pytest.raises(RunError, match="moved no weight"):
        fit(
            FineTune(
                classifier(), optimizer=lambda params: torch.optim.SGD(params, lr=0.0), norm=norm
            )
        )


def test_an_edit_that_edits_nothing_is_an_error() -> None:
    """Fails when a threshold that selects no weight ends as a success."""
    with pytest.raises(RunError, match=r"selects no weight at alpha 1e\+09.* set alpha below"):
        fit(SSD(classifier(), alpha=1e9), epochs=1)


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    """Fails when the run goes on, does not name the step, or writes its broken weights over the
    last good ones.
    """
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_last=True)
    with pytest.raises(RunError, match="nan at step 6"):
        fit(Breaks(classifier()), epochs=3, callbacks=[saver])
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 6
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """Fails when the step after a finite loss overflows and its weights are written as the last
    checkpoint.
    """

    def overflow(module: UnlearningModule, batch: Any, batch_idx: int) -> None:
        if module.trainer.global_step == 3:
            with torch.no_grad():
                module.trainable()[0][1].mul_(float("inf"))

    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_last=True)
    with pytest.raises(RunError, match="not finite"):
        fit(FineTune(classifier()), callbacks=[Watch(overflow), saver])
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize(
    ("make", "task", "word"),
    [
        (lambda: FineTune(classifier()), lambda: Bare(digits(), provides=frozenset()), "labels"),
        (lambda: FineTune(classifier()), lambda: Bare(digits(), keep=("forget",)), "retain"),
        (lambda: Sees(classifier(), Forget()), lambda: Bare(digits(), keep=("retain",)), "forget"),
        (lambda: RandomLabel(regressor()), diabetes, "classes"),
        (lambda: RandomLabel(classifier(), substitute=GivenByTask()), digits, "substitute"),
    ],
    ids=["labels", "retain", "forget", "classes", "substitute"],
)
def test_missing_parts_of_the_task_are_named_before_the_first_step(
    make: Any, task: Any, word: str
) -> None:
    """Fails when a missing need shows as a KeyError in the middle of an epoch."""
    module = make()
    with pytest.raises(InputError, match=word):
        fit(module, task())
    assert module.trainer.global_step == 0


def test_object_that_is_no_backbone_is_refused() -> None:
    """Fails when a bare network is wrapped, and its first batch ends in an AttributeError."""
    with pytest.raises(InputError, match="Classifier"):
        FineTune(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_an_unknown_argument_is_refused() -> None:
    """Fails when a misspelt hyperparameter is swallowed."""
    with pytest.raises(TypeError, match="learning_rate"):
        FineTune(classifier(), learning_rate=0.1)


def test_a_method_without_an_objective_says_so() -> None:
    """Fails when a half-written method trains on nothing."""
    method = type("Mine", (UnlearningModule,), {"plan": Forget()})
    with pytest.raises(InputError, match="Mine lacks objective, or else training_step"):
        fit(method(classifier()))


@pytest.mark.parametrize("when", ["validation", "epoch"])
def test_statistics_are_taken_anew_also_where_a_run_stops_early(
    when: str, originals: dict[str, State]
) -> None:
    """Fails when a run that stops early keeps the statistics of its training batches, or says
    nothing where it is too late.
    """
    stop = EarlyStopping(
        "retain/loss", patience=0, min_delta=1e9, check_on_train_epoch_end=when == "epoch"
    )
    module = FineTune(classifier(originals["classifier"]), norm="recalibrate")
    run = lambda: fit(module, digits(curves=["retain"]), 9, limit_val_batches=1.0, callbacks=[stop])  # noqa: E731
    if when == "epoch":
        with pytest.raises(RunError, match="check_on_train_epoch_end"):
            run()
        return
    run()
    assert module.current_epoch < 9
    final_weights = weights(module.backbone)
    recalibrate(module)
    assert distance(final_weights, weights(module.backbone)) < 1e-5


def test_only_classifiers_are_named_in_messages_of_shape() -> None:
    """Fails when images of other channels end in an error of the convolution."""
    with pytest.raises(InputError, match="in_channels"):
        fit(FineTune(Classifier("resnet8_cifar", in_channels=3, options={"width": 4})))


def test_errors_are_one_sentence() -> None:
    """Fails when a message runs over lines, which a terminal would tear apart."""
    with pytest.raises(RunError) as caught:
        fit(FineTune(classifier(), optimizer=lambda params: torch.optim.SGD(params, lr=0.0)))
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))
