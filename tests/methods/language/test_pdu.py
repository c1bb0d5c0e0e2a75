"""PDU: its equation, its dual variable, and the checks of methods on tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mu.backbones import CausalLM
from mu.methods.language.pdu import PDU
from tests.support.doubles_text import people
from tests.support.equations_text import by_token, nll, token_mean
from tests.support.helpers import Snapshot, Watch, different, fit, weights
from tests.support.token_methods import (
    ADAM,
    SingleRank,
    check_accumulated_batches,
    check_forgets_first,
    first_pair,
    terms_of,
    trained_model,
)


def test_the_terms_follow_the_equation() -> None:
    """Mutations: ε is left out; the margin is taken of other positions; the dual variable weighs
    the forget term.
    """
    forget, retain = first_pair(people())
    model = trained_model()
    retain_nll = token_mean(by_token(model, retain, nll))
    flat = token_mean(by_token(model, forget, lambda z, *_: (z.max() - z.mean()) ** 2))
    module = PDU(trained_model(), epsilon=0.2, dual=7.0)
    module._trainer = SingleRank()  # type: ignore[assignment]
    assert terms_of(module, forget, retain) == pytest.approx(
        {"forget": flat, "retain": 7 * (retain_nll - 0.2)}, rel=1e-4
    )
    assert float(module.retain_loss) == pytest.approx(retain_nll, rel=1e-4)


def test_the_dual_variable_follows_the_constraint(tmp_path: Path) -> None:
    """Mutations: it moves in the warm-up, with every micro-batch, or below 0; it is not in the
    checkpoint.
    """
    seen: list[tuple[int, float, float]] = []

    def run(**changes: Any) -> PDU:
        module = PDU(
            trained_model(),
            epsilon=1.5,
            dual=1.0,
            dual_step=0.5,
            dual_warmup_epochs=1,
            optimizer=ADAM,
        )
        fit(module, people(), 3, **changes)
        return module

    class Constraint(Watch):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            seen.append(
                (pl_module.current_epoch, float(pl_module.retain_loss), float(pl_module.multiplier))
            )

    module = run(callbacks=[Constraint(lambda *_: None), Snapshot(tmp_path / "x.ckpt", 1, 1)])
    dual = 1.0
    for epoch, loss, before in seen:
        assert before == pytest.approx(dual, abs=1e-6)
        dual = max(0.0, dual + 0.5 * (loss - 1.5)) if epoch >= 1 else dual
    assert float(module.multiplier) == pytest.approx(dual, abs=1e-6)
    # the retain loss lies below ε, so the constraint weighs less and less
    assert 0.0 <= dual < 1.0 and seen[0][1] > 0
    resumed = run(ckpt_path=tmp_path / "x.ckpt")
    assert torch.equal(resumed.multiplier, module.multiplier) and not different(
        weights(resumed), weights(module)
    )


def moving_dual(backbone: CausalLM, **changes: Any) -> PDU:
    """PDU whose dual variable moves from the first step on."""
    return PDU(backbone, dual=2.0, dual_warmup_epochs=0, **changes)


def test_one_big_batch_or_several_small_ones() -> None:
    large, small = check_accumulated_batches(moving_dual)
    assert float(large.multiplier) == pytest.approx(float(small.multiplier), rel=1e-12)
    assert float(large.multiplier) != 2.0


def test_the_forget_set_is_lost_first() -> None:
    check_forgets_first(moving_dual, 2e-3, 8)
