"""Contract of a fit: the plan's batches, the run's length, accumulation, reduction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mu.backbones import Backbone
from mu.core.fit_loop import planned_steps
from mu.core.lr import OneCycle
from mu.core.module import UnlearningModule
from mu.data.plan import DataPlan, Everything, Forget, Paired, Phases, Retain, Union, plan_steps
from mu.methods import FineTune, RandomLabel
from mu.methods.components.answers import AnswerOfAnotherQuestion
from mu.utils.errors import RunError
from tests.contract.doubles import Sees
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import (
    State,
    Watch,
    classifier,
    different,
    digits,
    distance,
    fit,
    trainer,
    weights,
)


@pytest.mark.parametrize(
    "plan",
    [
        Retain(),
        Paired(),
        Union(),
        Phases(Forget(epochs=1), Retain()),
        Phases(Forget(after=1), Retain()),
        Phases(Retain(epochs=1), Forget()),
    ],
    ids=repr,
)
def test_every_batch_of_the_plan_is_shown(plan: DataPlan) -> None:
    """Fails when Lightning's first measure of the loader cuts longer epochs short."""
    seen: list[tuple[int, list[int]]] = []

    def look(module: UnlearningModule, batch: Any, batch_idx: int) -> None:
        seen.append(
            (
                module.current_epoch,
                sorted(
                    int(i)
                    for part in ("forget", "retain")
                    if part in batch
                    for i in batch[part]["index"]
                ),
            )
        )

    task = digits()
    fit(Sees(classifier(), plan), task, 3, callbacks=[Watch(look)])
    sizes = {name: len(ids) for name, ids in task.split.parts.items()}
    parts = task.parts(plan.reads())
    expected = [
        (
            epoch,
            sorted(
                int(i)
                for name, rows in step.parts.items()
                for i in np.asarray(parts[name].indices)[rows.positions]
            ),
        )  # type: ignore[attr-defined]
        for epoch in range(3)
        for step in plan_steps(plan, epoch, sizes, {"forget": 10, "retain": 10}, 0)
    ]
    assert seen == expected


def test_validation_runs_in_epochs_of_every_length() -> None:
    """Fails when an epoch that is shorter than the first one ends before its validation."""
    counts: list[int] = []

    class Counts(Sees):
        def on_validation_epoch_end(self) -> None:
            super().on_validation_epoch_end()
            counts.append(self.current_epoch)

    for plan in (Phases(Forget(epochs=1), Retain()), Phases(Forget(after=1), Retain())):
        counts.clear()
        fit(Counts(classifier(), plan), digits(curves=["forget"]), 3, limit_val_batches=1.0)
        assert counts == [0, 1, 2]


def test_the_length_of_a_run_is_that_of_its_plan() -> None:
    """Fails when a learning-rate schedule ends before the run or after it, because epochs differ in
    length.
    """
    for changes in (
        {},
        {"limit_train_batches": 3},
        {"accumulate_grad_batches": 2},
        {"max_steps": 5},
    ):
        module = Sees(
            classifier(), Phases(Forget(epochs=1), Retain()), scheduler=OneCycle(end=0.25)
        )
        fit(module, digits(), 3, **changes)
        assert planned_steps(module) == module.trainer.global_step
        assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.25)


def test_empty_plan_is_an_error() -> None:
    """Fails when a run without a batch ends as if it had unlearned something."""
    with pytest.raises(RunError, match="no batch"):
        fit(Sees(classifier(), Forget(after=5)), epochs=2)


def test_plain_loaders_can_be_fitted_too() -> None:
    """Fails when a method works with a mu task only."""
    task = digits()
    task.setup()
    data: Any = task.datasets["retain"]
    batches = [{"retain": data.__getitems__(list(range(k, k + 10)))} for k in (0, 10, 20)]
    module = FineTune(classifier())
    before = weights(module)
    trainer(2).fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    assert module.trainer.global_step == 6
    assert different(before, weights(module))


def test_one_big_batch_or_several_small_ones() -> None:
    """Fails when accumulated gradients are averaged over micro-batches and not over samples (the
    last batch is smaller).
    """

    def run(batch: int, accumulate: int, make: Any) -> State:
        module = fit(make(), digits(batch_size=batch), epochs=2, accumulate_grad_batches=accumulate)
        return weights(module.backbone)

    for plan in (Retain(), Forget(), Union()):
        make = lambda: Sees(classifier(), plan, lr=0.05, norm="eval")  # noqa: B023, E731
        assert distance(run(20, 1, make), run(10, 2, make)) < 1e-5, plan
        assert distance(run(15, 1, make), run(5, 3, make)) < 1e-5, plan


def test_one_big_batch_of_drawn_answers_or_several_small_ones() -> None:
    """Fails when the answers that were drawn are averaged over the tokens of the true ones, or over
    one micro-batch.
    """

    def run(batch: int, accumulate: int) -> State:
        module = RandomLabel(
            causal_lm(),
            substitute=AnswerOfAnotherQuestion(),
            plan=Forget(),
            optimizer=lambda p: torch.optim.SGD(p, lr=0.5),
        )
        return weights(
            fit(
                module, people(batch_size=batch), epochs=2, accumulate_grad_batches=accumulate
            ).backbone
        )

    assert distance(run(12, 1), run(4, 3)) < 1e-5


def test_drawn_answers_weigh_what_they_have_of_tokens() -> None:
    """Fails when the total of a part's substitutes is that of its true answers; every step shows
    the law's own draws.
    """
    seen: list[tuple[float, float]] = []

    def see(module: UnlearningModule, batch: Any, number: int) -> None:
        part = module.prepare(batch["forget"], substitute=True)
        seen.append(
            (float(part["substitute_total"]), float((part["substitute"]["labels"] != -100).sum()))
        )

    module = RandomLabel(
        causal_lm(),
        substitute=AnswerOfAnotherQuestion(),
        plan=Forget(),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
    )
    fit(module, people(), epochs=1, callbacks=[Watch(see)])
    assert len(seen) == 3 and all(total == counted for total, counted in seen)


# ---- reduction -----------------------------------------------------------------------------------


def test_reductions_follow_their_equations() -> None:
    """Fails when two reductions are mixed up; by hand on two samples of 1 and 3 tokens."""
    part = {"count": torch.tensor(2.0), "total": torch.tensor(4.0)}
    summed = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 3.0])
    expected = {
        "token_mean": 5 / 4,
        "sequence_mean": (2 + 1) / 2,
        "sequence_sum": 5 / 2,
        "micro": 5 / 4,
    }
    for how, value in expected.items():
        assert FineTune(classifier(), reduction=how).reduce(summed, part).item() == pytest.approx(
            value
        )
    padded = {**part, "padded": torch.tensor([False, True])}
    values, weight = Backbone.count(padded, torch.tensor([2.0, 3.0]), torch.tensor([1.0, 3.0]))
    assert (values.tolist(), weight.tolist()) == ([2, 0], [1, 0])
    assert FineTune(classifier()).mean(torch.tensor([4.0, 9.0]), padded).item() == pytest.approx(
        4 / 2
    )


def test_everything_is_a_plan_without_a_forget_part() -> None:
    """Fails when training the original needs the forget part beside the joined one."""
    assert Everything().reads() == {"train"}
