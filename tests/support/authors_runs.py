"""Whole runs on the language model that comes with mu, at the settings of the authors study."""

from __future__ import annotations

from typing import Any

import torch

from mu.backbones import CausalLM
from tasks import Authors
from tests.support.helpers import fit


@torch.no_grad()
def probability(model: CausalLM, task: Authors, part: str, rows: int = 100) -> float:
    """Mean probability of the answers, to the power of one over their tokens."""
    data: Any = task.datasets[part]
    batch = data.__getitems__(list(range(0, len(data), max(1, len(data) // rows))))
    summed, count = model.eval().loss(batch)
    return float(torch.exp(-summed / count).mean())


def check_authors_are_forgotten(make: Any, lr: float) -> None:
    """Assert that the forgotten authors go and the others stay.

    Fails when a method does nothing, forgets nothing, or forgets everything.

    Args:
        make: the method, given a backbone and an optimizer.
        lr: learning rate of AdamW.
    """
    task = Authors(batch_size=20, curves=[])
    module = fit(
        make(
            CausalLM("embedded:authors"),
            optimizer=lambda params: torch.optim.AdamW(params, lr=lr, weight_decay=0.01),
        ),
        task,
        epochs=10,
    )
    served: Any = module.served()
    assert probability(served, task, "forget") < 0.3
    assert probability(served, task, "retain") > 0.6
