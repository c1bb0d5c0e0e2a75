"""What the behaviour tests of whole runs share: a small network that knows its digits, one class of
which is to be forgotten.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import tasks
from mu.backbones import Classifier
from mu.core.lr import OneCycle
from mu.methods import Train
from tests.support.helpers import classifier, digits, fit, weights


def trained() -> tuple[Any, dict[str, Tensor]]:
    """A network of width 8 trained on 300 scans, one class of which (threes) is to be forgotten."""
    task = digits(
        train_size=300, validation_size=100, batch_size=32, selector=tasks.ByClass(classes=3)
    )
    backbone = wide()
    fit(
        Train(
            backbone,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4),
            scheduler=OneCycle(),
        ),
        task,
        15,
    )
    assert accuracy(backbone, task, "forget") > 0.97 and accuracy(backbone, task, "retain") > 0.97
    return task, weights(backbone)


def wide(state: dict[str, Tensor] | None = None) -> Classifier:
    return classifier(state, options={"width": 8})


def accuracy(backbone: Any, task: Any, part: str) -> float:
    data = task.datasets[part]
    rows = data.__getitems__(list(range(len(data))))
    with torch.no_grad():
        return float((backbone.eval().predict(rows).argmax(1) == rows["label"]).float().mean())
