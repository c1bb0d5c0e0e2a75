"""SimNPO: its terms, and the checks of methods with a forget and a retain term."""

from __future__ import annotations

import pytest

from mu.methods.language.simnpo import SimNPO
from mu.utils.errors import InputError
from tests.support.equations_text import token_mean, token_nlls
from tests.support.preference_methods import (
    REDUCTIONS,
    build,
    check_accumulated_batches,
    check_depends_on_forget_set,
    check_forget_term_is_a_mean_over_sequences,
    check_one_forward_pass,
    check_retain_is_not_read_without_its_weight,
    check_terms,
    published_simnpo,
)


def test_terms_are_the_published_ones() -> None:
    check_terms(
        lambda: build(SimNPO, beta=0.7, delta=0.2),
        lambda m, o, f, r: {
            "forget": 0.125 * published_simnpo(m, o, f, 0.7, 0.2),
            "retain": token_mean(token_nlls(m, r)),
        },
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_forget_term_is_a_mean_over_sequences(reduction: str) -> None:
    check_forget_term_is_a_mean_over_sequences(SimNPO, reduction)


def test_accumulated_batches_give_the_step_of_a_large_one() -> None:
    check_accumulated_batches(SimNPO)


def test_a_step_is_one_forward_pass() -> None:
    check_one_forward_pass(SimNPO)


def test_without_its_weight_the_retain_part_is_not_read() -> None:
    check_retain_is_not_read_without_its_weight(SimNPO)


def test_loss_depends_on_the_forget_set() -> None:
    """An untrained model has A = 4, where the loss with β = 4.5 is flat."""
    check_depends_on_forget_set(SimNPO, beta=0.1)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="beta above 0"):
        build(SimNPO, beta=-1.0)
