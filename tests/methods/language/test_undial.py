"""UNDIAL: its equation, the checks of methods on tokens, and a run on the shipped model."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from mu.backbones import CausalLM
from mu.data.plan import Forget
from mu.methods.components.retain_terms import KL
from mu.methods.language.undial import UNDIAL
from tests.support.authors_runs import check_authors_are_forgotten
from tests.support.doubles_text import causal_lm, people
from tests.support.equations_text import by_token, logits_of, token_mean, unpadded
from tests.support.helpers import weights
from tests.support.token_methods import (
    check_accumulated_batches,
    check_forgets_first,
    check_unlearns_a_mixture_of_experts,
    first_pair,
    terms_of,
    trained_model,
)


def test_undial_follows_its_equation() -> None:
    """Mutations: β is added; the target is the student's own; prompt or padding is counted."""
    forget, _ = first_pair(people())
    model = trained_model()
    moved = causal_lm()
    module = UNDIAL(trained_model(), beta=3.0)
    module.configure_model()
    module.backbone.load_state_dict(weights(moved))
    teacher_logits = [logits_of(model, ids) for ids, _ in unpadded(forget)]

    def value(z: Tensor, y: int, row: int, t: int) -> Tensor:
        target = teacher_logits[row][t - 1].clone()
        target[y] -= 3.0
        return -(target.softmax(-1) * z.log_softmax(-1)).sum()

    expected = token_mean(by_token(moved, forget, value))
    assert terms_of(module, forget, None) == pytest.approx({"forget": expected}, rel=1e-4)
    assert isinstance(module.plan, Forget) and not module.needs_retain


def test_undial_with_beta_zero_has_no_gradient_at_the_original() -> None:
    """Cross-entropy to the model itself has no gradient."""
    forget, _ = first_pair(people())
    module = UNDIAL(trained_model().double(), beta=0.0)
    module.configure_model()
    module.backbone.eval()
    module.objective(forget, None)["forget"].backward()
    assert (
        max(float(p.grad.abs().max()) for p in module.backbone.parameters() if p.grad is not None)
        < 1e-12
    )


def with_retain(backbone: CausalLM, **changes: Any) -> UNDIAL:
    """UNDIAL with the divergence to the original on the retain part."""
    return UNDIAL(backbone, retain_weight=1.0, retain=KL(), **changes)


@pytest.mark.parametrize("make", [UNDIAL, with_retain])
def test_one_big_batch_or_several_small_ones(make: Any) -> None:
    check_accumulated_batches(make)


@pytest.mark.parametrize(("make", "lr"), [(UNDIAL, 1e-3), (with_retain, 3e-3)])
def test_the_forget_set_is_lost_first(make: Any, lr: float) -> None:
    check_forgets_first(make, lr, 8)


def test_a_mixture_of_experts_can_be_unlearned() -> None:
    check_unlearns_a_mixture_of_experts(UNDIAL)


@pytest.mark.slow
def test_the_authors_are_forgotten_and_the_others_stay() -> None:
    check_authors_are_forgotten(UNDIAL, 6.1e-4)
