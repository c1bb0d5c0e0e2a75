"""SalUn-soft: its proximal step, the steps it counts, and whole runs."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.core.fit_loop import planned_steps
from mu.core.module import UnlearningModule
from mu.data.plan import DataPlan, Forget, Phases, Retain
from mu.methods.general.salun_soft import SalUnSoft
from mu.utils.errors import InputError
from tests.support.equations import FAST, PLAIN
from tests.support.helpers import Watch, classifier, digits, fit
from tests.support.method_runs import (
    INSIDE_EPOCHS,
    check_class_is_forgotten,
    check_preset_builds,
    resumed_run,
)


def test_salun_soft_sets_exactly_the_smallest_changes_back() -> None:
    """k = floor(rho n (T - t) / T) after step t; what is left has lost the threshold, and nothing
    is taken back after step T.
    """
    backbone = classifier()
    n = sum(p.numel() for p in backbone.parameters())
    measured: list[tuple[int, float]] = []
    start: list[Tensor] = []

    def see(module: UnlearningModule, batch: Any, i: int) -> None:
        flat = torch.cat([p.detach().flatten() for p in module.backbone.parameters()])
        if i == 0:
            start[:] = [begin]
        change = (flat - start[0]).abs()
        measured.append(
            (
                int((change == 0).sum()),
                float(change[change > 0].min()) if bool((change > 0).any()) else 0.0,
            )
        )
        if i + 1 == module.trainer.num_training_batches:
            begin.copy_(flat)

    begin = torch.cat([p.detach().flatten() for p in backbone.parameters()])
    module = fit(SalUnSoft(backbone, rho=0.6, optimizer=FAST), epochs=2, callbacks=[Watch(see)])
    total = module.trainer.global_step
    assert total == 14
    for t, (still, _) in enumerate(measured, start=1):
        expected = math.floor(0.6 * n * (total - t) / total + 1e-9)
        # a few more gradients are exactly zero or tie
        assert expected <= still <= expected + n // 50, (
            t,
            still,
            expected,
        )
    assert measured[0][0] > 0.5 * n and measured[-1][0] < n // 50


@pytest.mark.parametrize(
    "plan",
    [Phases(Forget(epochs=1), Retain(after=1)), Phases(Forget(after=1), Retain())],
    ids=["part", "both"],
)
@pytest.mark.parametrize(
    "changes",
    [{}, {"limit_train_batches": 3}, {"accumulate_grad_batches": 2}, {"max_steps": 5}],
    ids=str,
)
def test_salun_soft_counts_the_steps_of_its_plan(plan: DataPlan, changes: dict[str, Any]) -> None:
    """Mutation: Lightning's estimate, which takes every epoch to be as long as the first; then
    changes are taken back to the end, or never.
    """
    asked: list[tuple[int, int]] = []

    class Asked(SalUnSoft):
        def proximal_step(self, step: int) -> None:
            asked.append((step, self._steps))
            super().proximal_step(step)

    module = fit(Asked(classifier(), plan=plan, optimizer=FAST), epochs=3, **changes)
    steps = module.trainer.global_step
    assert steps == planned_steps(module) and asked == [
        (step, steps) for step in range(1, steps + 1)
    ]


def test_salun_soft_needs_a_run_that_ends() -> None:
    with pytest.raises(InputError, match=r"set trainer\.max_epochs"):
        fit(SalUnSoft(classifier()), epochs=-1)


def test_salun_soft_step_is_the_proximal_step() -> None:
    """One step against a statement by sorting."""
    backbone = classifier()
    before = [p.detach().clone() for p in backbone.parameters()]
    module = SalUnSoft(backbone, rho=0.5, optimizer=PLAIN, norm="eval")
    task = digits()
    task.setup()
    twin = SalUnSoft(deepcopy(backbone), rho=0.0, optimizer=PLAIN, norm="eval")
    fit(module, task, max_steps=7, epochs=1, callbacks=[StopAfter(1)])
    fit(twin, digits(), max_steps=7, epochs=1, callbacks=[StopAfter(1)])
    raw = [p.detach() - q for p, q in zip(twin.backbone.parameters(), before, strict=True)]
    sizes = torch.cat([d.abs().flatten() for d in raw]).sort().values
    tau = sizes[math.floor(0.5 * len(sizes) * 6 / 7) - 1]
    for p, q, d in zip(backbone.parameters(), before, raw, strict=True):
        shrunk = torch.where(d > tau, d - tau, torch.where(d < -tau, d + tau, torch.zeros_like(d)))
        torch.testing.assert_close(p.detach() - q, shrunk, atol=1e-7, rtol=1e-5)


class StopAfter(Watch):
    """End a run whose planned length is longer."""

    def __init__(self, batches: int) -> None:
        super().__init__(
            lambda module, batch, i: setattr(module.trainer, "should_stop", i + 1 >= batches)
        )


@pytest.mark.parametrize("position", INSIDE_EPOCHS)
def test_a_run_resumes_inside_an_epoch(position: tuple[int, int], tmp_path: Path) -> None:
    """The weights at the start of the epoch travel with the checkpoint."""
    resumed_run(lambda b: SalUnSoft(b, optimizer=FAST), position, tmp_path)


def test_preset_builds() -> None:
    check_preset_builds("salun_soft")


@pytest.mark.slow
def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(SalUnSoft, 5, 0.4, 0.97)
