"""SCRUB as in the authors' large-scale script: forget epochs alone first, and whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.methods.compat import SCRUBWorstCase
from tests.support.equations import FAST
from tests.support.helpers import classifier
from tests.support.method_runs import (
    INSIDE_EPOCHS,
    check_class_is_forgotten,
    check_preset_builds,
    parts_by_epoch,
    resumed_run,
    sgd,
)


def test_forget_epochs_come_before_retain_epochs() -> None:
    assert parts_by_epoch(SCRUBWorstCase(classifier(), msteps=1), 4) == [
        "fff",
        "fff",
        "rrrr",
        "rrrr",
    ]


@pytest.mark.parametrize("position", INSIDE_EPOCHS)
def test_a_run_resumes_inside_an_epoch(position: tuple[int, int], tmp_path: Path) -> None:
    """In epochs of 3, 4 and 4 batches."""
    resumed_run(
        lambda b: SCRUBWorstCase(b, msteps=0, lr_decay_epochs=(1, 2), norm="eval", optimizer=FAST),
        position,
        tmp_path,
    )


def test_preset_builds() -> None:
    check_preset_builds("scrub_reference_code")


@pytest.mark.slow
def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(lambda b: SCRUBWorstCase(b, optimizer=sgd(5e-3, 5e-4)), 5, 0.2, 0.97)
