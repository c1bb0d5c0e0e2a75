"""Fine-tuning on the retain set: its step, the part it reads, and whole runs."""

from __future__ import annotations

import pytest

from mu.methods.general.finetune import FineTune
from tests.support.equations import PLAIN, cross_entropy, moved_as
from tests.support.helpers import classifier
from tests.support.method_runs import check_class_is_forgotten, check_preset_builds


def test_a_step_descends_the_retain_loss() -> None:
    moved_as(
        FineTune(classifier(), optimizer=PLAIN, norm="eval"),
        lambda net, batch: cross_entropy(net, batch["retain"]),
    )


def test_the_forget_part_is_not_read() -> None:
    module = FineTune(classifier())
    assert not module.needs_forget and module.plan.reads() == {"retain"}


def test_preset_builds() -> None:
    check_preset_builds("finetune")


@pytest.mark.slow
def test_the_rest_of_the_classes_stays() -> None:
    """A class is not forgotten in so short a time."""
    check_class_is_forgotten(FineTune, 5, 1.0, 0.97)
