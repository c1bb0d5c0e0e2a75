"""WHP: its generic labels, its two phases, and the checks of methods on tokens."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.backbones import CausalLM
from mu.methods.language.whp import WHP
from mu.methods.language.whp_inference import WHPInference
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, people
from tests.support.equations_text import logits_of, unpadded
from tests.support.helpers import State, Watch, different, fit, weights
from tests.support.token_methods import (
    PLAIN,
    check_accumulated_batches,
    check_forgets_first,
    trained_model,
    trained_state,
)


def test_generic_labels() -> None:
    """argmax [v_o − α relu(v_re − v_o)] for every labelled token, and the second phase fits them.
    Mutation: v_re is the original.
    """
    generic: list[dict[int, Tensor]] = []
    labels: list[Any] = []
    module = WHP(trained_model(), alpha=5.0, reinforce_epochs=1, reinforce_lr=0.05, optimizer=PLAIN)

    def look(whp: Any, batch: Any, batch_idx: int) -> None:
        if whp.phase == 1 and not generic:
            generic.append(dict(whp.generic))
        labels.append((whp.phase, batch["forget"]))

    fit(module, people(), 2, callbacks=[Watch(look)])
    assert module.reinforced is not None
    base = trained_model()
    copied = module.reinforced
    task = people()
    task.setup()
    data: Any = task.datasets["forget"]
    rows = data.__getitems__(list(range(len(data))))
    changed = []
    for row, (ids, truth) in enumerate(unpadded(rows)):
        v = logits_of(base, ids)
        v_re = logits_of(copied, ids)
        expected = [
            int((v[t - 1] - 5 * (v_re[t - 1] - v[t - 1]).clamp_min(0)).argmax())
            for t in range(1, len(ids))
            if truth[t] != -100
        ]
        assert generic[0][int(rows["index"][row])].tolist() == expected
        changed += [
            a != b for a, b in zip(expected, (y for y in truth[1:] if y != -100), strict=True)
        ]
    assert module.facts["generic_labels_changed"] == pytest.approx(sum(changed) / len(changed))
    phase, part = labels[-1]
    relabelled_part = module.relabelled(part)
    assert phase == 1 and torch.equal(relabelled_part["labels"] == -100, part["labels"] == -100)
    assert different({"labels": part["labels"]}, {"labels": relabelled_part["labels"]})


def test_in_each_phase_one_model_moves() -> None:
    """Fails when momentum or weight decay move the idle model, or the generic labels change while
    the model does.
    """
    states: list[tuple[int, State, State]] = []
    module = WHP(
        trained_model(),
        reinforce_epochs=1,
        reinforce_lr=0.05,
        optimizer=functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.5),
    )
    look: Any = lambda m, *_: states.append((m.phase, weights(m.backbone), weights(m.reinforced)))  # noqa: E731
    fit(module, people(), 2, callbacks=[Watch(look)])
    first = [state for state in states if state[0] == 0]
    second = [state for state in states if state[0] == 1]
    assert not any(different(trained_state(), backbone) for _, backbone, _ in first)
    assert different(first[0][2], first[-1][2])
    assert not any(different(first[-1][2], copied) for _, _, copied in second)
    assert different(second[0][1], second[-1][1])


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="max_epochs to at least 4, not 3"):
        fit(WHP(trained_model()), people(), 3)
    with pytest.raises(InputError, match="reinforce_epochs"):
        WHP(trained_model(), reinforce_epochs=0)
    # one that knows every answer of this part
    fluent = fit(
        WHPInference(
            causal_lm(init_seed=1), optimizer=functools.partial(torch.optim.AdamW, lr=0.01)
        ),
        people(),
        40,
    ).backbone
    with pytest.warns(UserWarning, match="every generic label of WHP is the true one"):
        fit(WHP(fluent, alpha=0.0, reinforce_epochs=1), people(), 2)  # type: ignore[arg-type]


def reinforced_for_an_epoch(backbone: CausalLM, **changes: Any) -> WHP:
    """WHP whose reinforced model is trained for one epoch."""
    return WHP(backbone, **{"reinforce_epochs": 1, "reinforce_lr": 0.02, **changes})


def test_one_big_batch_or_several_small_ones() -> None:
    check_accumulated_batches(reinforced_for_an_epoch, 2)


def test_the_forget_set_is_lost_first() -> None:
    check_forgets_first(WHP, 2e-3, 8, reinforce_epochs=3, reinforce_lr=0.01)
