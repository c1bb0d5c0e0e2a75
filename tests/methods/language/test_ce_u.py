"""CE-U: its equation, the tokens it counts, and the checks of methods on tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mu.backbones import CausalLM
from mu.methods.language.ce_u import CEU
from tests.support.doubles_text import people
from tests.support.equations_text import by_token, token_mean, unpadded
from tests.support.helpers import Watch, fit
from tests.support.token_methods import (
    check_accumulated_batches,
    check_forgets_first,
    first_pair,
    terms_of,
    trained_model,
)


def test_ce_u_ignores_the_first_token_of_each_answer() -> None:
    """Mutations: all first tokens are counted; the true token keeps a probability in the target."""
    forget, _ = first_pair(people())

    def value(z: Tensor, y: int, *_: Any) -> Tensor:
        q = z.clone()
        q[y] = -torch.inf
        q = q.softmax(-1)
        return -(q * z.log_softmax(-1)).sum()

    for skip in (0, 1, 3):
        tokens = [values[skip:] for values in by_token(trained_model(), forget, value)]
        assert terms_of(CEU(trained_model(), skip=skip), forget, None) == pytest.approx(
            {"forget": token_mean(tokens)}, rel=1e-4
        )


def test_ce_u_takes_the_mean_of_what_it_counts() -> None:
    """Fails when a fit divides by all labelled tokens, those that are ignored too."""
    seen: list[tuple[float, float]] = []

    def look(module: Any, batch: Any, batch_idx: int) -> None:
        counted = sum(
            max(sum(y != -100 for y in labels) - 4, 0) for _, labels in unpadded(batch["forget"])
        )
        seen.append((float(module.forget_total(batch["forget"])["total"]), counted))

    fit(CEU(trained_model(), skip=4), people(), 1, callbacks=[Watch(look)])
    assert len(seen) == 3 and all(total == counted > 0 for total, counted in seen)


def skipping(backbone: CausalLM, **changes: Any) -> CEU:
    """CE-U that skips the first two tokens of each answer."""
    return CEU(backbone, skip=2, **changes)


def test_one_big_batch_or_several_small_ones() -> None:
    check_accumulated_batches(skipping)


def test_the_forget_set_is_lost_first() -> None:
    check_forgets_first(skipping, 1e-3, 8)
