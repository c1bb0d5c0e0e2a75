"""KL minimisation: its terms, and the checks of methods with a forget and a retain term."""

from __future__ import annotations

from mu.methods.components.retain_terms import KL, NLL
from mu.methods.general.grad_diff import GradDiff
from mu.methods.general.kl_min import KLMin
from tests.support.doubles_text import people
from tests.support.equations_text import kl, token_mean, token_nlls
from tests.support.helpers import different, fit, weights
from tests.support.preference_methods import (
    build,
    check_accumulated_batches,
    check_depends_on_forget_set,
    check_one_forward_pass,
    check_terms,
)


def test_terms_are_the_published_ones() -> None:
    check_terms(
        lambda: build(KLMin),
        lambda m, o, f, r: {"forget": -token_mean(token_nlls(m, f)), "retain": kl(m, o, r)},
    )


def test_klmin_is_graddiff_with_kl() -> None:
    assert isinstance(build(KLMin).retain, KL) and isinstance(build(GradDiff).retain, NLL)
    a, b = (
        weights(fit(make, people(), 1).backbone)
        for make in (build(KLMin), build(GradDiff, retain=KL()))
    )
    assert different(a, b) == []


def test_accumulated_batches_give_the_step_of_a_large_one() -> None:
    check_accumulated_batches(KLMin)


def test_a_step_is_one_forward_pass() -> None:
    check_one_forward_pass(KLMin, reference=True)


def test_loss_depends_on_the_forget_set() -> None:
    check_depends_on_forget_set(KLMin)
