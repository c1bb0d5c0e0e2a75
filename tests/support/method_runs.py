"""Checks that the tests of single methods share: exact resumption, presets, and what a whole run
does to a class of digits or a range of targets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import mu.methods
import tasks
from mu.config.components import Components
from mu.core.lr import OneCycle
from mu.core.module import UnlearningModule
from mu.methods import Train
from tests.support.helpers import (
    Snapshot,
    Watch,
    classifier,
    diabetes,
    different,
    digits,
    fit,
    regressor,
    weights,
)
from tests.support.trained import accuracy, trained, wide

Make = Callable[[Any], UnlearningModule]
CONFIGS = Path(__file__).parents[2] / "configs" / "method"
INSIDE_EPOCHS = [(0, 1), (1, 2)]
"""Epoch and batch of the checkpoints that `resumed_run` starts from."""


def sgd(lr: float, weight_decay: float = 0.0) -> Any:
    """Optimizer factory of SGD with momentum 0.9."""
    return lambda params: torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=weight_decay)


def adam(lr: float) -> Any:
    """Optimizer factory of Adam."""
    return lambda params: torch.optim.Adam(params, lr=lr)


def resumed_run(make: Make, position: tuple[int, int], folder: Path) -> tuple[Any, Any]:
    """A run of three epochs and the same run resumed from a checkpoint inside an epoch.

    Asserts that both end with the same weights, bit for bit.

    Args:
        make: the method, given a classifier.
        position: epoch and batch after which the checkpoint is written.
        folder: where the checkpoint is written.
    """
    checkpoint = folder / "middle.ckpt"
    uninterrupted = fit(make(classifier()), epochs=3, callbacks=[Snapshot(checkpoint, *position)])
    resumed = fit(make(classifier()), epochs=3, ckpt_path=checkpoint)
    assert not different(weights(uninterrupted), weights(resumed))
    return uninterrupted, resumed


def check_preset_builds(name: str) -> None:
    """Assert that a preset names a method with arguments it takes, and that its head shows its
    command.
    """
    text = (CONFIGS / f"{name}.yaml").read_text()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert f"configs/method/{name}.yaml" in "\n".join(head)
    preset = yaml.safe_load(text)
    assert set(preset) <= {"model", "trainer", "data"} and preset["trainer"]["max_epochs"] >= 1
    module = _module_of(
        preset,
        "mu.backbones.Classifier",
        {"name": "resnet8_cifar", "in_channels": 1},
    )
    assert hasattr(mu.methods, type(module).__name__) or type(module).__module__.startswith(
        "mu.methods.compat"
    )


def check_preset_runs(name: str, backbone: str = "Classifier") -> None:
    """Fit a preset on a tiny model for its epochs; its head must show one command that runs it.

    Args:
        name: file name of the preset without its ending.
        backbone: `Classifier` or `Regressor`.
    """
    text = (CONFIGS / f"{name}.yaml").read_text()
    commands = [line for line in text.splitlines() if line.startswith("#   mu fit")]
    assert len(commands) == 1 and f"configs/method/{name}.yaml" in commands[0]
    paths = [word for word in commands[0].split() if word.startswith("configs/")]
    assert all((CONFIGS.parents[1] / path).is_file() for path in paths)
    preset = yaml.safe_load(text)
    arguments: dict[str, Any] = {
        "Classifier": {"name": "resnet8_cifar", "in_channels": 1, "options": {"width": 4}},
        "Regressor": {"in_features": 10},
    }
    module = _module_of(preset, f"mu.backbones.{backbone}", arguments[backbone])
    if backbone == "Regressor":
        task: Any = diabetes()
    else:
        task = digits(selector=tasks.ByClass(3)) if "class" in commands[0] else digits()
    fit(module, task, preset["trainer"]["max_epochs"])


def _module_of(preset: Any, class_path: str, init_args: dict[str, Any]) -> UnlearningModule:
    arguments = dict(preset["model"].get("init_args") or {})
    arguments["backbone"] = {"class_path": class_path, "init_args": init_args}
    model = {"class_path": preset["model"]["class_path"], "init_args": arguments}
    module = Components().make("model", model)
    assert isinstance(module, UnlearningModule)
    return module


@cache
def trained_digits() -> tuple[Any, dict[str, Tensor]]:
    """A task whose forget set is one class, and weights that know it; trained once a process."""
    return trained()


def check_class_is_forgotten(
    make: Make, epochs: int, forget_accuracy: float, retain_accuracy: float
) -> None:
    """Assert that forget accuracy falls below, and retain accuracy stays above, a bound.

    Args:
        make: the method, given a classifier that knows its digits.
        epochs: length of the run.
        forget_accuracy: upper bound.
        retain_accuracy: lower bound.
    """
    task, state = trained_digits()
    served = fit(make(wide(state)), task, epochs).served()
    measured = accuracy(served, task, "forget"), accuracy(served, task, "retain")
    assert measured[0] <= forget_accuracy and measured[1] >= retain_accuracy, measured


def check_range_is_forgotten(make: Make, epochs: int) -> None:
    """Assert that the error on the forgotten range of targets grows by more than half, elsewhere by
    less than a quarter.
    """
    task = diabetes(
        train_size=300, validation_size=50, batch_size=32, selector=tasks.ValueRange(25, 90)
    )
    backbone = regressor()
    fit(Train(backbone, optimizer=adam(0.01), scheduler=OneCycle()), task, 60)
    before = _errors(backbone, task)
    after = _errors(fit(make(backbone), task, epochs).served(), task)
    assert after[0] > 1.5 * before[0] and after[1] < 1.25 * before[1], (before, after)


def _errors(model: Any, task: Any) -> list[float]:
    errors = []
    for name in ("forget", "retain"):
        rows = task.datasets[name].__getitems__(list(range(len(task.datasets[name]))))
        with torch.no_grad():
            errors.append(float((model.eval().predict(rows) - rows["target"]).abs().mean()))
    return errors


LAST_K = [1, 3, -1]


def check_only_the_last_k_layers_move(cls: Any, k: int) -> None:
    """Assert that the prefix keeps its weights and its batch-norm statistics, bit for bit."""
    backbone = classifier()
    before = weights(backbone)
    fit(cls(backbone, k=k), epochs=1)
    last = ("body.linear",) if k == 1 else ("body.linear", "body.layer3.0.bn", "body.layer3.0.conv")
    allowed = {
        name
        for name in before
        if k == -1 or name.startswith(tuple(f"network.{part}" for part in last))
    }
    moved = set(different(before, weights(backbone)))
    assert moved == {name for name in allowed if not name.startswith("network.normalize")}


def parts_by_epoch(module: UnlearningModule, epochs: int) -> list[str]:
    """Parts of the batches of each epoch in their order: f for forget, r for retain."""
    letters: dict[int, str] = {}

    def see(module: UnlearningModule, batch: Any, i: int) -> None:
        letter = "f" if "forget" in batch else "r"
        letters[module.current_epoch] = letters.get(module.current_epoch, "") + letter

    fit(module, epochs=epochs, callbacks=[Watch(see)])
    return [letters[epoch] for epoch in range(epochs)]
