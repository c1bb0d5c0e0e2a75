"""Refusals by NLL, with one mean over both parts or two: terms, and shared checks."""

from __future__ import annotations

from typing import Any

import pytest

from mu.methods.language.idk_nll import IdkNLL, IdkNLLSeparate
from mu.utils.errors import InputError
from tests.support.equations_text import token_mean, token_nlls
from tests.support.preference_methods import (
    Case,
    build,
    check_accumulated_batches,
    check_depends_on_forget_set,
    check_depends_on_substitutes,
    check_one_forward_pass,
    check_terms,
)

CASES: dict[str, Case] = {
    "IdkNLL": (
        lambda: build(IdkNLL),
        lambda m, o, f, r: {
            "refuse_and_retain": token_mean(token_nlls(m, f["substitute"]) + token_nlls(m, r))
        },
    ),
    "IdkNLL separate": (
        lambda: build(IdkNLLSeparate, retain_weight=0.6),
        lambda m, o, f, r: {
            "refuse": token_mean(token_nlls(m, f["substitute"])),
            "retain": 0.6 * token_mean(token_nlls(m, r)),
        },
    ),
}
on_both = pytest.mark.parametrize("cls", [IdkNLL, IdkNLLSeparate])


@pytest.mark.parametrize("name", CASES)
def test_terms_are_the_published_ones(name: str) -> None:
    check_terms(*CASES[name])


@on_both
def test_accumulated_batches_give_the_step_of_a_large_one(cls: Any) -> None:
    check_accumulated_batches(cls)


@on_both
def test_a_step_is_one_forward_pass(cls: Any) -> None:
    check_one_forward_pass(cls)


@on_both
def test_loss_depends_on_the_forget_set(cls: Any) -> None:
    check_depends_on_forget_set(cls)


def test_loss_depends_on_the_substitutes() -> None:
    check_depends_on_substitutes(IdkNLL)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="at least 0"):
        build(IdkNLLSeparate, retain_weight=-1.0)
