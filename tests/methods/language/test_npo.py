"""NPO: its terms, its gradient far from and near the original, and a run on the shipped model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.methods.components.masks import Saliency
from mu.methods.components.retain_terms import KL
from mu.methods.language.npo import NPO
from mu.utils.errors import InputError
from tests.support.authors_runs import check_authors_are_forgotten
from tests.support.doubles_text import causal_lm, people
from tests.support.equations_text import kl, token_mean, token_nlls
from tests.support.helpers import classifier, different, fit, weights
from tests.support.preference_methods import (
    REDUCTIONS,
    Case,
    build,
    check_accumulated_batches,
    check_depends_on_forget_set,
    check_first_loss,
    check_forget_term_is_a_mean_over_sequences,
    check_one_forward_pass,
    check_retain_is_not_read_without_its_weight,
    check_terms,
    published_npo,
)

CASES: dict[str, Case] = {
    "NPO": (
        lambda: build(NPO, beta=0.3),
        lambda m, o, f, r: {
            "forget": published_npo(m, o, f, 0.3),
            "retain": token_mean(token_nlls(m, r)),
        },
    ),
    "with weights": (
        lambda: build(NPO, forget_weight=0.4, retain_weight=2.5),
        lambda m, o, f, r: {
            "forget": 0.4 * published_npo(m, o, f, 0.1),
            "retain": 2.5 * token_mean(token_nlls(m, r)),
        },
    ),
    "with KL": (
        lambda: build(NPO, retain=KL()),
        lambda m, o, f, r: {"forget": published_npo(m, o, f, 0.1), "retain": kl(m, o, r)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_terms_are_the_published_ones(name: str) -> None:
    check_terms(*CASES[name])


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_the_first_loss_is_two_over_beta_log_two(beta: float) -> None:
    """The likelihoods of the original are computed in other batches than the step's."""
    check_first_loss(NPO, beta)


def gradient(module: UnlearningModule, part: Batch, ascent: bool = False) -> Tensor:
    """Of the forget term alone, or of gradient ascent on the sum of the tokens, over all
    weights.
    """
    loss = -module.backbone.nll(part).mean() if ascent else module.objective(part, None)["forget"]
    gradients = torch.autograd.grad(loss, [p for _, p in module.trainable()], allow_unused=True)
    return torch.cat([g.flatten() for g in gradients if g is not None])


def test_npos_gradient_tends_to_gradient_ascents() -> None:
    """Away from the original too: the distance falls as β does."""
    task = people()
    gaps = []
    for beta in (1.0, 0.1, 0.01, 0.001):
        module = build(NPO, beta=beta, retain_weight=0.0)
        fit(module, task, 1, precision="64-true")
        batch = next(module.iterate_batches(module.plan, augment=False))
        ascent = gradient(module, batch["forget"], ascent=True)
        gaps.append(float((gradient(module, batch["forget"]) - ascent).norm() / ascent.norm()))
    assert gaps[0] > 0.05
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[2] / gaps[3] == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_forget_term_is_a_mean_over_sequences(reduction: str) -> None:
    check_forget_term_is_a_mean_over_sequences(NPO, reduction)


def test_accumulated_batches_give_the_step_of_a_large_one() -> None:
    check_accumulated_batches(NPO)


def test_a_step_is_one_forward_pass() -> None:
    """Before the first step the original reads 13 answers, ten at a time."""
    check_one_forward_pass(NPO, before=2)


def test_without_its_weight_the_retain_part_is_not_read() -> None:
    check_retain_is_not_read_without_its_weight(NPO)


def test_loss_depends_on_the_forget_set() -> None:
    check_depends_on_forget_set(NPO)


def test_a_saliency_mask_is_computed_before_the_first_step() -> None:
    module = fit(build(NPO, mask=Saliency(keep=0.2)), people(), 1)
    assert module.mask is not None and module.mask.share() == pytest.approx(0.2, abs=1e-3)
    assert different(weights(causal_lm()), weights(module.backbone))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build(NPO, beta=0.0), "beta above 0"),
        (lambda: build(NPO, retain_weight=-1.0), "at least 0"),
        (lambda: NPO(classifier()), "defined for a CausalLM"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_the_authors_are_forgotten_and_the_others_stay() -> None:
    check_authors_are_forgotten(NPO, 6.1e-4)
