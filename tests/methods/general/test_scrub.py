"""SCRUB: the two distillations, the order of the batches, the learning rate, and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mu.core.module import UnlearningModule
from mu.data.plan import Forget, Retain
from mu.methods.general.scrub import SCRUB
from tests.support.equations import (
    FAST,
    close,
    cross_entropy,
    distillation,
    disturb,
    doubled,
    gradient,
    total,
)
from tests.support.helpers import (
    Watch,
    classifier,
    digits,
    fit,
)
from tests.support.method_runs import (
    INSIDE_EPOCHS,
    check_class_is_forgotten,
    check_preset_builds,
    parts_by_epoch,
    resumed_run,
    sgd,
)


def test_scrub_distils_away_from_the_teacher_on_forget_and_towards_it_on_retain() -> None:
    module = SCRUB(classifier(), gamma=0.9, alpha=0.3, temperature=3.0, norm="eval")
    module.configure_model()
    teacher = doubled(module.backbone)
    disturb(module.backbone)
    module.set_mode()
    student = doubled(module.backbone)
    task = digits()
    task.setup()
    forget = next(iter(task.plan_loader(Forget(), 0)))["forget"]
    retain = next(iter(task.plan_loader(Retain(), 0)))["retain"]
    parameters = list(module.backbone.parameters())
    gradients = torch.autograd.grad(total(module.objective(forget, None)), parameters)
    close(gradients, gradient(student, -distillation(student, teacher, forget, 3.0)))
    gradients = torch.autograd.grad(total(module.objective(None, retain)), parameters)
    close(
        gradients,
        gradient(
            student,
            0.9 * cross_entropy(student, retain)
            + 0.3 * distillation(student, teacher, retain, 3.0),
        ),
    )


def test_scrub_runs_forget_then_retain_and_in_the_end_retain_alone() -> None:
    assert parts_by_epoch(SCRUB(classifier(), msteps=2), 4) == [
        "fffrrrr",
        "fffrrrr",
        "rrrr",
        "rrrr",
    ]
    assert parts_by_epoch(SCRUB(classifier(), msteps=0), 2) == ["rrrr", "rrrr"]


def test_scrub_learning_rate_falls_after_the_listed_epochs() -> None:
    """[1, 3]: strictly exceeded first by epochs 2 and 4, counted from 1."""
    rates: dict[int, float] = {}

    def see(module: UnlearningModule, batch: Any, i: int) -> None:
        rates.setdefault(module.current_epoch, module.trainer.optimizers[0].param_groups[0]["lr"])

    fit(
        SCRUB(classifier(), lr_decay_epochs=(1, 3), optimizer=FAST),
        epochs=5,
        callbacks=[Watch(see)],
    )
    assert [rates[e] for e in range(5)] == pytest.approx([0.05, 0.005, 0.005, 0.0005, 0.0005])


@pytest.mark.parametrize("position", INSIDE_EPOCHS)
def test_scrub_resumes_inside_an_epoch(position: tuple[int, int], tmp_path: Path) -> None:
    """In epochs of 7, 4 and 4 batches."""
    resumed_run(
        lambda b: SCRUB(b, msteps=1, lr_decay_epochs=(1, 2), optimizer=FAST), position, tmp_path
    )


@pytest.mark.parametrize("name", ["scrub", "scrub_small"])
def test_preset_builds(name: str) -> None:
    check_preset_builds(name)


@pytest.mark.slow
def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(
        lambda b: SCRUB(b, msteps=3, alpha=0.1, optimizer=sgd(5e-3, 5e-4)), 5, 0.2, 0.97
    )
