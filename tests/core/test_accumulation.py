"""Accumulation windows: a window ends with its phase and epoch, and divides by its own batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler
from torch import Tensor

from mu.core.fit_loop import planned_steps
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import DataPlan, Forget, Phases, Retain
from tests.support.helpers import Watch, classifier, digits, distance, fit, trainer, weights


class Penalised(UnlearningModule):
    """Loss on either part, and a penalty that is no mean over samples."""

    def __init__(self, plan: DataPlan, **kwargs: Any) -> None:
        super().__init__(
            classifier(),
            optimizer=lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
            norm="eval",
            **kwargs,
        )
        self.plan = plan

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        terms = {
            name: self.reduce(self.backbone.loss(part), part)
            for name, part in (("forget", forget), ("retain", retain))
            if part is not None
        }
        squares = [weight.square().sum() for _, weight in self.trainable()]
        return {**terms, "penalty": 0.01 * torch.stack(squares).sum()}


def both_phases() -> Phases:
    return Phases(Forget(), Retain())


def steps_by_phase(accumulate: int, **changes: Any) -> list[tuple[int, int]]:
    """(phase, optimizer steps made after it) of each batch of the first epoch."""
    log: list[tuple[int, int]] = []

    def see(module: UnlearningModule, batch: Any, number: int) -> None:
        log.append((batch["phase"], module.trainer.global_step))

    fit(
        Penalised(both_phases()),
        epochs=1,
        accumulate_grad_batches=accumulate,
        callbacks=[Watch(see)],
        **changes,
    )
    return log


@pytest.mark.parametrize(
    ("accumulate", "made"),
    [
        (2, [(0, 0), (0, 1), (0, 2), (1, 2), (1, 3), (1, 3), (1, 4)]),
        (3, [(0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (1, 2), (1, 3)]),
        (100, [(0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (1, 1), (1, 2)]),
    ],
)
def test_a_step_is_made_where_a_phase_ends(accumulate: int, made: list[tuple[int, int]]) -> None:
    """Mutation that must fail it: windows that count batches over the border of phases."""
    assert steps_by_phase(accumulate) == made


def test_an_epoch_cut_short_ends_its_window() -> None:
    assert steps_by_phase(2, limit_train_batches=4) == [(0, 0), (0, 1), (0, 2), (1, 3)]


@pytest.mark.parametrize(("large", "small", "accumulate"), [(20, 10, 2), (15, 5, 3)])
def test_windows_of_phases_equal_large_batches(large: int, small: int, accumulate: int) -> None:
    """Mutations that must fail it: divide by the trainer's number in a short window too; clear
    gradients at multiples of it.
    """

    def run(size: int, batches: int) -> dict[str, Tensor]:
        module = Penalised(both_phases())
        return weights(fit(module, digits(batch_size=size), 2, accumulate_grad_batches=batches))

    assert distance(run(large, 1), run(small, accumulate)) < 1e-5


def test_a_schedule_of_accumulation_has_its_windows() -> None:
    class Steps(Callback):
        ends: list[int]

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.ends.append(trainer.global_step)

    steps = Steps()
    steps.ends = []
    module = Penalised(both_phases())
    fit(module, epochs=2, callbacks=[GradientAccumulationScheduler({0: 3, 1: 1}), steps])
    assert steps.ends == [3, 10]
    assert planned_steps(module) == 10


def test_the_trainer_is_left_as_it_was() -> None:
    module = Penalised(both_phases())
    run_trainer = trainer(1, accumulate_grad_batches=3)
    run_trainer.fit(module, datamodule=digits())
    assert run_trainer.accumulate_grad_batches == 3
    assert "_accumulated_batches_reached" not in vars(run_trainer.fit_loop.epoch_loop)
