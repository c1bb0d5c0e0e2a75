"""EraseDiff: the steps of its equation, the inner descent and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.data.plan import Forget, Paired, Phases
from mu.methods.diffusion.erase_diff import EraseDiff
from mu.utils.errors import InputError
from tests.support.denoised import KINDS, MODELS, PLAIN, agree, step_of
from tests.support.doubles import class_conditional, digit_pictures, pictures, text_to_image
from tests.support.equations_erase_diff import check_stops_anywhere, gradients, inner
from tests.support.helpers import Watch, different, fit, weights


@pytest.mark.parametrize("domain", KINDS)
@pytest.mark.parametrize("lam", [0.7, None])
def test_a_step_follows_the_equation(domain: str, lam: float | None) -> None:
    """Mutations: λ on the retain term; the norm in place of its square; λ not held constant; one
    part's gradient handed on twice.
    """
    make, task = MODELS[domain]

    def module() -> EraseDiff:
        return EraseDiff(make(), inner_epochs=0, lam=lam, eta=1.3, optimizer=PLAIN)

    def small() -> Any:
        return task(batch_size=5, forget_batch_size=3)

    keep, constraint = gradients(domain, module(), small())
    weight = (
        max(0.0, 1.3 - inner(keep, constraint) / inner(constraint, constraint))
        if lam is None
        else lam
    )
    assert weight > 0
    agree(
        step_of(module(), small()), {name: keep[name] + weight * constraint[name] for name in keep}
    )


class Still(EraseDiff):
    """Its descent goes nowhere."""

    def objective(self, forget: Any, retain: Any) -> dict[str, Tensor]:
        terms = super().objective(forget, retain)
        return {name: 0 * value if name == "inner" else value for name, value in terms.items()}


@pytest.mark.parametrize("lam", [0.5, None])
def test_the_descent_leaves_no_trace(lam: float | None) -> None:
    """Neither in the weights nor in Adam's moments: its value is a constant of the steps.
    Mutations: weights not put back; moments shared; moments of the steps lost.
    """
    ends = [
        weights(fit(cls(class_conditional(), lam=lam), digit_pictures(), 2).backbone)
        for cls in (EraseDiff, Still)
    ]
    assert different(*ends) == []


def test_the_descent_and_the_way_back() -> None:
    """The descent moves weights and lowers L_f; the steps begin where it began; L_f(φ) is its last
    epoch's mean.
    """
    seen: list[tuple[int, bool, float]] = []
    states: list[Any] = []

    def look(module: Any, batch: Any, batch_idx: int) -> None:
        seen.append(
            (
                module.phase,
                bool(module.inside),
                float(module.trainer.callback_metrics.get("train/inner", 0)),
            )
        )
        states.append({name: p.detach().clone() for name, p in module.trainable()})

    module = EraseDiff(
        text_to_image(), inner_epochs=2, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2)
    )
    fit(module, pictures(forget_batch_size=4), 1, log_every_n_steps=1, callbacks=[Watch(look)])
    assert [phase for phase, _, _ in seen] == [0] * 4 + [1] * 4 + [2] * 4
    assert [inside for _, inside, _ in seen] == [True] * 8 + [False] * 4
    last = [loss for phase, _, loss in seen if phase == 1]
    assert float(module.inner_loss) == pytest.approx(
        sum(a * b for a, b in zip(last, (4, 4, 4, 1), strict=True)) / 13, rel=1e-5
    )
    assert sum(last) < sum(loss for phase, _, loss in seen if phase == 0)
    start = dict(text_to_image().named_parameters())

    def largest_change(state: Any) -> float:
        return max(
            float((value - start[name].detach()).abs().max()) for name, value in state.items()
        )

    assert largest_change(states[7]) > 0.03
    assert largest_change(states[8]) < 0.011  # one step of Adam from where it began


def test_a_run_may_stop_anywhere(tmp_path: Path) -> None:
    check_stops_anywhere(EraseDiff, tmp_path)


def test_schedules() -> None:
    assert EraseDiff(class_conditional(), inner_epochs=2).plan == Phases(
        Forget(), Forget(), Paired(length="forget")
    )
    assert EraseDiff(class_conditional(), inner_epochs=0, limit=7).plan == Phases(
        Paired(length="retain", limit=7)
    )


@pytest.mark.parametrize("wrong", [{"inner_epochs": -1}, {"lam": -0.1}, {"eta": 0.0}])
def test_wrong_settings_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError):
        EraseDiff(class_conditional(), **wrong)


def test_accumulated_batches_are_refused() -> None:
    with pytest.raises(InputError, match="cannot accumulate"):
        fit(EraseDiff(class_conditional()), digit_pictures(), 1, accumulate_grad_batches=2)
