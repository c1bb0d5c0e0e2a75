"""Gradient difference: its terms, and the checks of methods with a forget and a retain term."""

from __future__ import annotations

from mu.methods.general.grad_diff import GradDiff
from tests.support.equations_text import token_mean, token_nlls
from tests.support.preference_methods import (
    build,
    check_accumulated_batches,
    check_depends_on_forget_set,
    check_one_forward_pass,
    check_retain_is_not_read_without_its_weight,
    check_terms,
)


def test_terms_are_the_published_ones() -> None:
    check_terms(
        lambda: build(GradDiff, retain_weight=1.5),
        lambda m, o, f, r: {
            "forget": -token_mean(token_nlls(m, f)),
            "retain": 1.5 * token_mean(token_nlls(m, r)),
        },
    )


def test_accumulated_batches_give_the_step_of_a_large_one() -> None:
    check_accumulated_batches(GradDiff)


def test_a_step_is_one_forward_pass() -> None:
    check_one_forward_pass(GradDiff)


def test_without_its_weight_the_retain_part_is_not_read() -> None:
    check_retain_is_not_read_without_its_weight(GradDiff)


def test_loss_depends_on_the_forget_set() -> None:
    check_depends_on_forget_set(GradDiff)
