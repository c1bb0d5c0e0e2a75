"""Whole runs: built from their presets, and what they do to a class of digits or a range of
targets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import tasks
from mu.config.components import Components
from mu.core.lr import OneCycle
from mu.core.module import UnlearningModule
from mu.methods import (
    DELETE,
    UNSIR,
    BadTeacher,
    Blindspot,
    BoundaryExpand,
    BoundaryShrink,
    FisherForgetting,
    GaussianAmnesiac,
    Influence,
    Train,
)
from mu.methods.compat import (
    BoundaryExpandReference,
    BoundaryShrinkReference,
    FisherForgettingReference,
)
from tests.support.helpers import diabetes, digits, fit, regressor
from tests.support.trained import accuracy, trained, wide

CONFIGS = Path(__file__).parents[2] / "configs" / "method"
PRESETS = {
    **dict.fromkeys(
        [
            "influence",
            "influence_reference_code",
            "fisher_forgetting",
            "fisher_forgetting_reference_code",
            "boundary_shrink",
            "boundary_shrink_reference_code",
            "boundary_expand",
            "boundary_expand_reference_code",
            "bad_teacher",
            "delete",
            "unsir",
            "unsir_ssd",
        ],
        "classifier",
    ),
    "blindspot": "regressor",
    "gaussian_amnesiac": "regressor",
}


@pytest.mark.parametrize(("name", "kind"), PRESETS.items())
def test_preset_runs(name: str, kind: str) -> None:
    """Every preset names a method that exists and arguments that it takes, and its head shows a
    command that runs it.
    """
    text = (CONFIGS / f"{name}.yaml").read_text()
    commands = [line for line in text.splitlines() if line.startswith("#   mu fit")]
    assert len(commands) == 1 and f"configs/method/{name}.yaml" in commands[0]
    words = commands[0].split()
    assert all(
        (CONFIGS.parents[1] / word).is_file() for word in words if word.startswith("configs/")
    )
    given = yaml.safe_load(text)
    backbones = {
        "classifier": {"name": "resnet8_cifar", "in_channels": 1, "options": {"width": 4}},
        "regressor": {"in_features": 10},
    }
    arguments = dict(given["model"].get("init_args") or {})
    arguments["backbone"] = {
        "class_path": f"mu.backbones.{kind.capitalize()}",
        "init_args": backbones[kind],
    }
    module = Components().make(
        "model", {"class_path": given["model"]["class_path"], "init_args": arguments}
    )
    assert isinstance(module, UnlearningModule)
    task = (
        diabetes()
        if kind == "regressor"
        else digits(selector=tasks.ByClass(3))
        if "class" in commands[0]
        else digits()
    )
    fit(module, task, given["trainer"]["max_epochs"])


# ---------------------------------------------------------------- behaviour


@pytest.fixture(scope="module")
def original() -> tuple[Any, dict[str, Tensor]]:
    return trained()


def sgd(rate: float) -> Any:
    return lambda params: torch.optim.SGD(params, lr=rate, momentum=0.9)


def adam(rate: float) -> Any:
    return lambda params: torch.optim.Adam(params, lr=rate)


BEHAVIOUR: dict[str, tuple[Callable[[Any], UnlearningModule], int, float, float]] = {
    "Influence": (lambda b: Influence(b, alpha=1.5, per_sample="hooks"), 1, 0.3, 0.9),
    "FisherForgetting": (
        lambda b: FisherForgetting(b, alpha=1e-7, per_sample="hooks"),
        1,
        0.0,
        0.97,
    ),
    "FisherForgettingReference": (lambda b: FisherForgettingReference(b, alpha=1e-9), 1, 0.0, 0.97),
    "BoundaryShrink": (lambda b: BoundaryShrink(b, optimizer=sgd(5e-3)), 10, 0.2, 0.9),
    "BoundaryShrinkReference": (
        lambda b: BoundaryShrinkReference(b, optimizer=sgd(5e-3)),
        10,
        1.0,
        0.9,
    ),
    "BoundaryExpand": (lambda b: BoundaryExpand(b, optimizer=sgd(5e-3)), 10, 0.9, 0.9),
    "BoundaryExpandReference": (
        lambda b: BoundaryExpandReference(b, optimizer=sgd(5e-3)),
        10,
        0.1,
        0.9,
    ),
    "BadTeacher": (lambda b: BadTeacher(b, optimizer=adam(2e-3)), 8, 0.4, 0.9),
    "DELETE": (lambda b: DELETE(b, optimizer=sgd(0.02)), 10, 0.1, 0.9),
    "UNSIR": (lambda b: UNSIR(b, noise_size=32, optimizer=adam(0.01)), 3, 0.1, 0.85),
}


@pytest.mark.parametrize("name", BEHAVIOUR)
def test_forgets_a_class_and_keeps_the_rest(name: str, original: Any) -> None:
    """Forget accuracy falls below, and retain accuracy stays above, the given bounds."""
    task, state = original
    make, epochs, at_most, at_least = BEHAVIOUR[name]
    module = fit(make(wide(state)), task, epochs)
    found = accuracy(module.served(), task, "forget"), accuracy(module.served(), task, "retain")
    assert found[0] <= at_most and found[1] >= at_least, found


REGRESSION: dict[str, tuple[Callable[[Any], UnlearningModule], int]] = {
    "Blindspot": (lambda b: Blindspot(b, optimizer=adam(3e-3), proxy_lr=0.01, proxy_epochs=20), 40),
    "GaussianAmnesiac": (lambda b: GaussianAmnesiac(b, optimizer=adam(3e-3)), 20),
}


@pytest.mark.parametrize("name", REGRESSION)
def test_forgets_a_range_of_targets_and_keeps_the_rest(name: str) -> None:
    """The error on the forgotten range grows by more than half; elsewhere by less than a
    quarter.
    """
    task = diabetes(
        train_size=300, validation_size=50, batch_size=32, selector=tasks.ValueRange(25, 90)
    )
    backbone = regressor()
    fit(Train(backbone, optimizer=adam(0.01), scheduler=OneCycle()), task, 60)

    def errors(model: Any) -> list[float]:
        parts = [
            task.datasets[part].__getitems__(list(range(len(task.datasets[part]))))
            for part in ("forget", "retain")
        ]
        with torch.no_grad():
            return [
                float((model.eval().predict(part) - part["target"]).abs().mean()) for part in parts
            ]

    before = errors(backbone)
    make, epochs = REGRESSION[name]
    after = errors(fit(make(backbone), task, epochs).served())
    assert after[0] > 1.5 * before[0] and after[1] < 1.25 * before[1], (before, after)
