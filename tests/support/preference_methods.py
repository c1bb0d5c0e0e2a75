"""Preference methods on a tiny language model: published losses, and the checks that every such
method passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from mu.backbones import CausalLM
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.questions import TokenRows
from mu.methods.components.answers import AnswerOfAnotherQuestion, Refusal
from mu.methods.components.retain_terms import KL
from tests.support.doubles_text import causal_lm, people
from tests.support.equations_text import Terms, mean, sequence_nlls, token_nlls
from tests.support.helpers import different, fit, weights

Make = Callable[..., UnlearningModule]
Published = Callable[[CausalLM, CausalLM, Batch, Batch], Terms]
Case = tuple[Make, Published]
"""Constructor of a method, and its terms from (model, original, forget batch, retain batch)."""


def fast_sgd(params: Any) -> torch.optim.Optimizer:
    """SGD at a rate at which a few steps lead away from the original."""
    return torch.optim.SGD(params, lr=0.1)


def build(cls: Any, **changes: Any) -> UnlearningModule:
    """A method on the tiny Llama, with a fast optimizer."""
    return cls(causal_lm(), **{"optimizer": fast_sgd, **changes})


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def published_npo(now: CausalLM, original: CausalLM, forget: Batch, beta: float) -> float:
    pairs = zip(sequence_nlls(now, forget), sequence_nlls(original, forget), strict=True)
    return mean([2 / beta * math.log(1 + math.exp(s_ref - s) ** beta) for s, s_ref in pairs])


def published_dpo(now: CausalLM, original: CausalLM, forget: Batch, beta: float) -> float:
    win = forget["substitute"]
    losses = []
    for w, wr, x, xr in zip(
        sequence_nlls(now, win),
        sequence_nlls(original, win),
        sequence_nlls(now, forget),
        sequence_nlls(original, forget),
        strict=True,
    ):
        losses.append(-2 / beta * math.log(sigmoid(beta * ((wr - w) - (xr - x)))))
    return mean(losses)


def published_simnpo(
    now: CausalLM, original: CausalLM, forget: Batch, beta: float, delta: float
) -> float:
    return mean(
        [
            -2 / beta * math.log(sigmoid(beta * (mean(values) - delta)))
            for values in token_nlls(now, forget)
        ]
    )


def check_terms(make: Make, published: Published) -> None:
    """Assert that the terms of each step are the published ones.

    In double precision, over an epoch whose last batch is smaller, on answers of unequal lengths.
    """
    module = make()
    original = causal_lm().double()
    steps: list[tuple[Terms, Terms]] = []
    objective = module.objective

    def look(forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        terms = objective(forget, retain)
        assert forget is not None and retain is not None and isinstance(module.backbone, CausalLM)
        steps.append(
            (
                {key: value.item() for key, value in terms.items()},
                published(module.backbone, original, forget, retain),
            )
        )
        return terms

    module.objective = look  # type: ignore[method-assign]
    fit(module, people(), 1, precision="64-true")
    assert len(steps) == 3
    for terms, expected in steps:
        assert terms == pytest.approx(expected, rel=1e-9)
    assert {*steps[0][0].values()} != {*steps[2][0].values()}


def check_first_loss(cls: Any, beta: float) -> None:
    """Assert that the first forget term is 2/β log 2, in single precision too."""
    losses: list[float] = []
    module = build(cls, beta=beta)
    objective = module.objective

    def look(forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        terms = objective(forget, retain)
        losses.append(terms["forget"].item())
        return terms

    module.objective = look  # type: ignore[method-assign]
    fit(module, people(), 1)
    assert losses[0] == pytest.approx(2 / beta * math.log(2), abs=1e-5)
    assert abs(losses[-1] - losses[0]) > 1e-3


REDUCTIONS = ["sequence_mean", "sequence_sum", "micro"]


def check_forget_term_is_a_mean_over_sequences(cls: Any, reduction: str) -> None:
    """Assert that a nonlinearity of sequences is not averaged over tokens."""
    first_terms: list[Terms] = []
    for how in ("token_mean", reduction):
        module = build(cls, reduction=how)
        objective = module.objective
        steps: list[dict[str, Tensor]] = []

        def look(
            forget: Batch | None, retain: Batch | None, inner: Any = objective, log: Any = steps
        ) -> dict[str, Tensor]:
            log.append(inner(forget, retain))
            return log[-1]

        module.objective = look  # type: ignore[method-assign]
        fit(module, people(), 1, precision="64-true")
        first_terms.append({key: value.item() for key, value in steps[0].items()})
    assert first_terms[0]["forget"] == pytest.approx(first_terms[1]["forget"], rel=1e-12)
    if reduction != "micro":
        assert first_terms[0]["retain"] != pytest.approx(first_terms[1]["retain"], rel=1e-3)


def check_accumulated_batches(cls: Any) -> None:
    """Assert that two accumulated batches give the step of one of twice the size."""
    large = fit(build(cls), people(batch_size=10), 1, max_steps=1, precision="64-true")
    small = fit(
        build(cls),
        people(batch_size=5),
        1,
        max_steps=1,
        precision="64-true",
        accumulate_grad_batches=2,
    )
    a = weights(large.backbone)
    b = weights(small.backbone)
    assert different(a, weights(causal_lm().double()))
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-12


class Forwards(Callback):
    """Counts forward passes of the trained model: before the first batch, and in each step."""

    def __init__(self) -> None:
        self.before, self.steps, self.modes = 0, [], []  # type: ignore[var-annotated]

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        pl_module.backbone.network.register_forward_pre_hook(self.count)

    def count(self, network: torch.nn.Module, *_: Any) -> None:
        if self.steps:
            self.steps[-1] += 1
        else:
            self.before += 1
            self.modes.append((network.training, torch.is_grad_enabled()))

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps.append(0)


def check_one_forward_pass(cls: Any, before: int = 0, reference: bool = False) -> None:
    """Assert that a step is one forward pass, whatever its parts.

    Args:
        cls: the method.
        before: forward passes of the original before the first step, in eval mode.
        reference: whether a second model is held beside the trained one.
    """
    count = Forwards()
    module = fit(build(cls), people(), 2, callbacks=[count])
    assert count.steps == [1] * 6
    assert count.before == before
    assert set(count.modes) <= {(False, False)}
    assert (module.reference is not None) == reference
    assert ("cache" in module.stopwatch.seconds()) == bool(before)


def check_retain_is_not_read_without_its_weight(cls: Any) -> None:
    """Assert that a retain weight of 0 leaves the retain part and the original unread."""
    module = build(cls, retain_weight=0.0, retain=KL())
    assert not module.needs_retain and not module.needs_reference
    assert module.plan.reads() == {"forget"}
    retain_parts: list[Any] = []
    objective = module.objective

    def look(forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        retain_parts.append(retain)
        return objective(forget, retain)

    module.objective = look  # type: ignore[method-assign]
    fit(module, people(), 1)
    assert retain_parts == [None] * 3


def other_forget(**changes: Any) -> Any:
    """The task with other forget questions and answers."""
    task = people(**changes)
    task.setup()
    retain: Any = task.datasets["retain"]
    forget: Any = task.datasets["forget"]
    texts = {name: values[: len(forget)] for name, values in retain.texts.items()}
    task.datasets["forget"] = TokenRows(retain.pair, forget.indices, texts)
    return task


def check_depends_on_forget_set(cls: Any, **changes: Any) -> None:
    """Assert that other forget questions and answers give other weights."""
    ends = [
        weights(fit(build(cls, **changes), task, 1).backbone) for task in (people(), other_forget())
    ]
    assert different(*ends)


def check_depends_on_substitutes(cls: Any) -> None:
    """Assert that refusals and answers of other questions give different weights."""
    ends = [
        weights(fit(build(cls, substitute=law), people(), 1).backbone)
        for law in (Refusal(), AnswerOfAnotherQuestion())
    ]
    assert different(*ends)
