"""Tiny tasks, tiny real models, and a trainer that writes nothing: what the tests of the machinery
share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

import tasks
from mu.backbones import Backbone, Classifier, Regressor
from mu.core.module import UnlearningModule
from mu.data.datamodule import UnlearningDataModule

State = dict[str, Tensor]
EPOCHS = 2
"""Enough for a checkpoint inside an epoch, one between two epochs, and something to resume."""
_SIZES: dict[str, Any] = {
    "selector": tasks.RandomFraction(0.4),
    "train_size": 61,
    "validation_size": 11,
    "batch_size": 10,
    "curves": [],
    "eval_batch_size": 500,
}


def digits(**changes: Any) -> tasks.Digits:
    """61 scans: 24 to forget in batches of 10, 10 and 4, and 37 to retain in four batches, the last
    of 7.
    """
    return tasks.Digits(**{**_SIZES, **changes})


def diabetes(**changes: Any) -> tasks.Diabetes:
    """61 patients, divided as the digits are."""
    return tasks.Diabetes(**{**_SIZES, **changes})


def classifier(state: Mapping[str, Tensor] | None = None, **changes: Any) -> Classifier:
    """A ResNet-8 of width 4 on grey 8x8 pixels (5,000 weights)."""
    arguments: dict[str, Any] = {
        "in_channels": 1,
        "mean": [0.3053],
        "std": [0.376],
        "init_seed": 0,
        "options": {"width": 4},
    }
    return with_state(Classifier("resnet8_cifar", **{**arguments, **changes}), state)


def regressor(state: Mapping[str, Tensor] | None = None, **changes: Any) -> Regressor:
    """A perceptron with one hidden layer."""
    arguments: dict[str, Any] = {
        "in_features": 10,
        "hidden": [16],
        "offset": 150.0,
        "scale": 77.0,
        "init_seed": 0,
    }
    return with_state(Regressor(**{**arguments, **changes}), state)


def with_state(backbone: Any, state: Mapping[str, Tensor] | None) -> Any:
    """The backbone, holding these weights where any are given."""
    if state is not None:
        backbone.load_state_dict(state)
    return backbone


def trainer(epochs: int = EPOCHS, **changes: Any) -> Trainer:
    """On the CPU, silent, and writing nothing unless a callback does; no validation."""
    checkpoints = any(
        callback.__class__.__name__ == "ModelCheckpoint"
        for callback in changes.get("callbacks", [])
    )
    arguments: dict[str, Any] = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": checkpoints,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
    }
    return Trainer(**{**arguments, **changes})


def fit(
    module: UnlearningModule,
    task: UnlearningDataModule | None = None,
    epochs: int = EPOCHS,
    ckpt_path: Any = None,
    **changes: Any,
) -> UnlearningModule:
    """Fit in silence, and return the module."""
    trainer(epochs, **changes).fit(
        module, datamodule=digits() if task is None else task, ckpt_path=ckpt_path
    )
    return module


def weights(module: torch.nn.Module) -> State:
    """A copy of all that a checkpoint would hold."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def different(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> list[str]:
    """Names whose tensors are not the same bit for bit, or that only one of them has."""
    common = [name for name in a if name in b]
    return sorted(set(a) ^ set(b)) + [name for name in common if not torch.equal(a[name], b[name])]


def distance(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Largest absolute difference over all tensors of floating point."""
    assert a.keys() == b.keys()
    gaps = [
        (a[name].double() - b[name].double()).abs().max().item()
        for name in a
        if a[name].is_floating_point()
    ]
    return max(gaps, default=0.0)


def predictions(backbone: Backbone, task: UnlearningDataModule, name: str = "forget") -> Tensor:
    """What a backbone in eval mode says to one split of a task."""
    data: Any = task.datasets[name] if task.datasets else None
    if data is None:
        task.setup()
        data = task.datasets[name]
    part = data.__getitems__(list(range(len(data))))
    part["visit"] = torch.zeros(len(data), dtype=torch.int64)
    with torch.no_grad():
        return backbone.eval().predict(backbone.prepare(part, 0))


class Snapshot(Callback):
    """Writes a checkpoint after a given batch, whatever the step count says: what a signal or a
    timer would do.
    """

    def __init__(self, path: Any, epoch: int, batch: int) -> None:
        self.path = path
        self.epoch = epoch
        self.batch = batch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            trainer.save_checkpoint(self.path)


class Watch(Callback):
    """Calls a function after every training batch."""

    def __init__(self, see: Callable[[UnlearningModule, Any, int], None]) -> None:
        self.see = see

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, UnlearningModule)
        self.see(pl_module, batch, batch_idx)
