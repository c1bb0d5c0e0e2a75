"""Methods on the language model that comes with mu, at the settings of the authors study: the
authors go, the others stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mu.backbones import CausalLM
from mu.core.module import UnlearningModule
from mu.methods import NPO, UNDIAL, TaskVector
from tasks import Authors
from tests.support.helpers import fit

Make = Callable[[CausalLM, Any], UnlearningModule]
METHODS: dict[str, tuple[Make, float]] = {
    "NPO": (lambda model, adam: NPO(model, optimizer=adam), 6.1e-4),
    "UNDIAL": (lambda model, adam: UNDIAL(model, optimizer=adam), 6.1e-4),
    "TaskVector": (lambda model, adam: TaskVector(model, alpha=3.0, optimizer=adam), 3.6e-4),
}


@torch.no_grad()
def probability(model: CausalLM, task: Authors, part: str, rows: int = 100) -> float:
    """Mean probability of the answers, to the power of one over their tokens."""
    data: Any = task.datasets[part]
    batch = data.__getitems__(list(range(0, len(data), max(1, len(data) // rows))))
    summed, count = model.eval().loss(batch)
    return float(torch.exp(-summed / count).mean())


def test_the_models_know_what_they_should() -> None:
    """Fails when the shipped original forgot its authors, or the oracle knows those it never
    saw.
    """
    task = Authors(tokenizer="embedded:authors")
    task.setup()
    original = CausalLM("embedded:authors")
    oracle = CausalLM("embedded:authors_oracle")
    assert min(probability(original, task, "forget"), probability(original, task, "retain")) > 0.95
    assert probability(oracle, task, "forget") < 0.4 < 0.95 < probability(oracle, task, "retain")


@pytest.mark.parametrize(
    "name",
    ["NPO", *(pytest.param(name, marks=pytest.mark.slow) for name in ("UNDIAL", "TaskVector"))],
)
def test_the_authors_go_and_the_others_stay(name: str) -> None:
    """Fails when a method does nothing, forgets nothing, or forgets everything."""
    make, rate = METHODS[name]
    task = Authors(batch_size=20, curves=[])
    module = fit(
        make(
            CausalLM("embedded:authors"),
            lambda params: torch.optim.AdamW(params, lr=rate, weight_decay=0.01),
        ),
        task,
        epochs=10,
    )
    served: Any = module.served()
    forgotten, kept = (probability(served, task, part) for part in ("forget", "retain"))
    assert forgotten < 0.3 and kept > 0.6
