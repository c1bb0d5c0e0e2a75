"""EraseDiff: the steps of its equation, the way there and back, and the released code's shared
moments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.data.plan import Forget, Paired, Phases
from mu.methods.compat.erase_diff_reference import EraseDiffReference
from mu.methods.components.substitutes import UniformLabel
from mu.methods.diffusion.erase_diff import EraseDiff
from mu.utils.errors import InputError
from tests.support.denoised import KINDS, MODELS, PLAIN, Double, agree, prepared, square, step_of
from tests.support.doubles import class_conditional, digit_pictures, pictures, text_to_image
from tests.support.helpers import Snapshot, Watch, different, fit, weights


def gradients(
    kind: str, module: EraseDiff, task: Any, scale: float = 1.0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """∇L_r and ∇L_f on the plan's first batch."""
    make = MODELS[kind][0]
    batch = prepared(module, task)
    double = Double(make())
    forget = batch["forget"]
    retain = batch["retain"]
    if kind == "text":
        substitute: Any = forget["raw"]["substitute"]
    else:
        law = UniformLabel(exclude_true=True)
        law.setup(make(), None)
        substitute = law.draw(forget, 0)
    target = double.output(forget["noised"], forget["t"], double.states(substitute)).detach()
    of_forget = double.slopes(
        square(double.output(forget["noised"], forget["t"], double.own(forget)), target)
    )
    return double.slopes(scale * double.loss(retain)), of_forget


def inner(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return float(sum((a[name] * b[name]).sum() for name in a))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lam", [0.7, None])
def test_a_step_follows_the_equation(kind: str, lam: float | None) -> None:
    """Mutations: λ on the retain term; the norm in place of its square; λ not held constant; one
    part's gradient handed on twice.
    """
    make, task = MODELS[kind]

    def module() -> EraseDiff:
        return EraseDiff(make(), inner_epochs=0, lam=lam, eta=1.3, optimizer=PLAIN)

    def small() -> Any:
        return task(batch_size=5, forget_batch_size=3)

    keep, constraint = gradients(kind, module(), small())
    weight = (
        max(0.0, 1.3 - inner(keep, constraint) / inner(constraint, constraint))
        if lam is None
        else lam
    )
    assert weight > 0
    agree(
        step_of(module(), small()), {name: keep[name] + weight * constraint[name] for name in keep}
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lam", [0.7, None])
def test_a_step_of_the_released_code(kind: str, lam: float | None) -> None:
    """L_r is a sum over elements; the weight is by the cosine."""
    make, task = MODELS[kind]

    def module() -> EraseDiff:
        return EraseDiffReference(make(), inner_epochs=0, lam=lam, eta=1.3, optimizer=PLAIN)

    keep, constraint = gradients(kind, module(), task(), scale=64.0)
    cosine = inner(keep, constraint) / (inner(keep, keep) * inner(constraint, constraint)) ** 0.5
    weight = max(0.0, 1.3 - cosine) if lam is None else lam
    agree(
        step_of(module(), task()),
        {name: keep[name] + weight * constraint[name] for name in keep},
        tolerance=1e-3,
    )


class Still(EraseDiff):
    """Its descent goes nowhere."""

    def objective(self, forget: Any, retain: Any) -> dict[str, Tensor]:
        terms = super().objective(forget, retain)
        return {name: 0 * value if name == "inner" else value for name, value in terms.items()}


class StillReference(Still, EraseDiffReference):
    """The same with shared moments."""


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


def test_it_leaves_a_trace_in_the_released_code() -> None:
    ends = [
        weights(fit(cls(class_conditional()), digit_pictures(), 1).backbone)
        for cls in (EraseDiffReference, StillReference)
    ]
    assert different(*ends) != []


def test_there_and_back() -> None:
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

    def far(state: Any) -> float:
        return max(
            float((value - start[name].detach()).abs().max()) for name, value in state.items()
        )

    assert far(states[7]) > 0.03
    assert far(states[8]) < 0.011  # one step of Adam from where it began


def test_only_the_steps_are_clipped_in_the_released_code() -> None:
    """Plain SGD under a clip of next to nothing: the descent moves far, the steps do not."""
    far: list[float] = []
    before = dict(class_conditional().named_parameters())

    def look(module: Any, batch: Any, batch_idx: int) -> None:
        far.append(
            max(float((p - before[name]).detach().abs().max()) for name, p in module.trainable())
        )

    module = EraseDiffReference(
        class_conditional(), inner_epochs=1, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)
    )
    fit(module, digit_pictures(), 1, gradient_clip_val=1e-6, callbacks=[Watch(look)])
    assert far[2] > 1e-3 and max(far[3:]) < 1e-5


@pytest.mark.parametrize("cls", [EraseDiff, EraseDiffReference])
def test_a_run_may_stop_anywhere(cls: type[EraseDiff], tmp_path: Path) -> None:
    """In the descent, at its end and after it, in the second epoch, where there are moments to be
    put aside.
    """

    def make() -> EraseDiff:
        return cls(class_conditional(), inner_epochs=1)

    whole = weights(fit(make(), digit_pictures(), 2))
    for batch in (0, 2, 3, 4):
        fit(make(), digit_pictures(), 2, callbacks=[Snapshot(tmp_path / "x.ckpt", 1, batch)])
        assert (
            different(
                whole, weights(fit(make(), digit_pictures(), 2, ckpt_path=tmp_path / "x.ckpt"))
            )
            == []
        ), batch


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
