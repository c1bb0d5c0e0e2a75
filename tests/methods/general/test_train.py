"""Training the original: its step over the whole training set, and its preset."""

from __future__ import annotations

from mu.methods.general.train import Train
from tests.support.equations import PLAIN, cross_entropy, moved_as
from tests.support.helpers import classifier
from tests.support.method_runs import check_preset_builds


def test_a_step_descends_the_loss_of_all_parts() -> None:
    moved_as(
        Train(classifier(), optimizer=PLAIN, norm="eval"),
        lambda net, batch: cross_entropy(net, batch["train"]),
    )


def test_preset_builds() -> None:
    check_preset_builds("train")
