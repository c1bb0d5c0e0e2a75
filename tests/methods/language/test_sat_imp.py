"""SatImp: its equation, and the checks of methods on tokens."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from mu.methods.language.sat_imp import SatImp
from tests.support.doubles_text import people
from tests.support.equations_text import by_token, nll, token_mean
from tests.support.token_methods import (
    check_accumulated_batches,
    check_forgets_first,
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
        return p**5 * (1 - p) * p.log()

    expected = {
        "forget": token_mean(by_token(model, forget, value)),
        "retain": 0.1 * token_mean(by_token(model, retain, nll)),
    }
    assert terms_of(SatImp(trained_model()), forget, retain) == pytest.approx(expected, rel=1e-4)


def test_one_big_batch_or_several_small_ones() -> None:
    check_accumulated_batches(SatImp)


def test_the_forget_set_is_lost_first() -> None:
    check_forgets_first(SatImp, 5e-3, 8)
