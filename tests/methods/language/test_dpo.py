"""DPO and its refusing form: terms, substitutes, and the checks of preference methods."""

from __future__ import annotations

import math

import pytest

from mu.methods.components.answers import AnswerOfAnotherQuestion, Refusal
from mu.methods.components.retain_terms import KL
from mu.methods.language.dpo import DPO, IdkDPO
from mu.utils.errors import InputError
from tests.support.doubles_text import people
from tests.support.equations_text import kl, token_mean, token_nlls
from tests.support.helpers import fit
from tests.support.preference_methods import (
    REDUCTIONS,
    Case,
    build,
    check_accumulated_batches,
    check_depends_on_forget_set,
    check_depends_on_substitutes,
    check_first_loss,
    check_forget_term_is_a_mean_over_sequences,
    check_one_forward_pass,
    check_retain_is_not_read_without_its_weight,
    check_terms,
    published_dpo,
)

CASES: dict[str, Case] = {
    "IdkDPO": (
        lambda: build(IdkDPO, beta=0.2),
        lambda m, o, f, r: {
            "forget": published_dpo(m, o, f, 0.2),
            "retain": token_mean(token_nlls(m, r)),
        },
    ),
    "DPO with another answer and KL": (
        lambda: build(DPO, substitute=AnswerOfAnotherQuestion(), retain=KL()),
        lambda m, o, f, r: {"forget": published_dpo(m, o, f, 0.1), "retain": kl(m, o, r)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_terms_are_the_published_ones(name: str) -> None:
    check_terms(*CASES[name])


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_the_first_loss_is_two_over_beta_log_two(beta: float) -> None:
    """The likelihoods of the original are computed in other batches than the step's."""
    check_first_loss(IdkDPO, beta)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_forget_term_is_a_mean_over_sequences(reduction: str) -> None:
    check_forget_term_is_a_mean_over_sequences(IdkDPO, reduction)


def test_accumulated_batches_give_the_step_of_a_large_one() -> None:
    check_accumulated_batches(IdkDPO)


def test_a_step_is_one_forward_pass() -> None:
    """Before the first step the original reads 13 answers and 26 refusals or fewer, ten at a
    time.
    """
    check_one_forward_pass(IdkDPO, before=4)


def test_without_its_weight_the_retain_part_is_not_read() -> None:
    check_retain_is_not_read_without_its_weight(IdkDPO)


def test_loss_depends_on_the_forget_set() -> None:
    check_depends_on_forget_set(IdkDPO)


def test_loss_depends_on_the_substitutes() -> None:
    check_depends_on_substitutes(DPO)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="beta above 0"):
        build(DPO, substitute=Refusal(), beta=math.nan)


def test_dpo_needs_substitutes() -> None:
    with pytest.raises(InputError, match="substitute targets"):
        fit(build(DPO), people(), 1)
