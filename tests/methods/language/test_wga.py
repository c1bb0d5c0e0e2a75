"""WGA: its equation, and the checks of methods on tokens."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from mu.methods.bases.forget_retain import ForgetRetainMethod
from mu.methods.language.wga import WGA
from tests.support.doubles_text import people
from tests.support.equations_text import by_token, nll, token_mean
from tests.support.token_methods import (
    check_accumulated_batches,
    check_forgets_first,
    check_unlearns_a_mixture_of_experts,
    first_pair,
    terms_of,
    trained_model,
)


def test_the_terms_follow_the_equation() -> None:
    """Mutations: the weight is not detached; the mean is over sequences; the retain term takes the
    forget part.
    """
    forget, retain = first_pair(people())
    model = trained_model()

    def value(z: Tensor, y: int, *_: Any) -> Tensor:
        p = z.softmax(-1)[y]
        return p**2 * p.log()

    expected = {
        "forget": 0.5 * token_mean(by_token(model, forget, value)),
        "retain": 2 * token_mean(by_token(model, retain, nll)),
    }
    module = WGA(trained_model(), beta=2.0, forget_weight=0.5, retain_weight=2.0)
    assert terms_of(module, forget, retain) == pytest.approx(expected, rel=1e-4)


def test_one_big_batch_or_several_small_ones() -> None:
    check_accumulated_batches(WGA)


def test_the_forget_set_is_lost_first() -> None:
    check_forgets_first(WGA, 2e-3, 8)


def test_a_mixture_of_experts_can_be_unlearned() -> None:
    check_unlearns_a_mixture_of_experts(WGA)
    assert issubclass(WGA, ForgetRetainMethod)
