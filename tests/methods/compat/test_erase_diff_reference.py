"""EraseDiff as in the released code: its step, its shared moments, and its clipping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.methods.compat.erase_diff_reference import EraseDiffReference
from mu.methods.diffusion.erase_diff import EraseDiff
from tests.support.denoised import KINDS, MODELS, PLAIN, agree, step_of
from tests.support.doubles import class_conditional, digit_pictures
from tests.support.equations_erase_diff import check_stops_anywhere, gradients, inner
from tests.support.helpers import Watch, different, fit, weights


@pytest.mark.parametrize("domain", KINDS)
@pytest.mark.parametrize("lam", [0.7, None])
def test_a_step_of_the_released_code(domain: str, lam: float | None) -> None:
    """L_r is a sum over elements; the weight is by the cosine."""
    make, task = MODELS[domain]

    def module() -> EraseDiff:
        return EraseDiffReference(make(), inner_epochs=0, lam=lam, eta=1.3, optimizer=PLAIN)

    keep, constraint = gradients(domain, module(), task(), scale=64.0)
    cosine = inner(keep, constraint) / (inner(keep, keep) * inner(constraint, constraint)) ** 0.5
    weight = max(0.0, 1.3 - cosine) if lam is None else lam
    agree(
        step_of(module(), task()),
        {name: keep[name] + weight * constraint[name] for name in keep},
        tolerance=1e-3,
    )


class Still(EraseDiffReference):
    """The released code with a descent of gradient zero."""

    def objective(self, forget: Any, retain: Any) -> dict[str, Tensor]:
        terms = super().objective(forget, retain)
        return {name: 0 * value if name == "inner" else value for name, value in terms.items()}


def test_the_descent_leaves_a_trace() -> None:
    """Adam's moments are shared."""
    ends = [
        weights(fit(cls(class_conditional()), digit_pictures(), 1).backbone)
        for cls in (EraseDiffReference, Still)
    ]
    assert different(*ends) != []


def test_only_the_steps_are_clipped_in_the_released_code() -> None:
    """Plain SGD under a clip of next to nothing: the descent moves far, the steps do not."""
    distances: list[float] = []
    before = dict(class_conditional().named_parameters())

    def look(module: Any, batch: Any, batch_idx: int) -> None:
        distances.append(
            max(float((p - before[name]).detach().abs().max()) for name, p in module.trainable())
        )

    module = EraseDiffReference(
        class_conditional(), inner_epochs=1, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)
    )
    fit(module, digit_pictures(), 1, gradient_clip_val=1e-6, callbacks=[Watch(look)])
    assert distances[2] > 1e-3 and max(distances[3:]) < 1e-5


def test_a_run_may_stop_anywhere(tmp_path: Path) -> None:
    check_stops_anywhere(EraseDiffReference, tmp_path)
