"""Fixtures of benchmarks: random images as a task, trainers that mark their steps, result lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mu.backbones import Classifier
from mu.data.datamodule import UnlearningDataModule
from mu.data.split import Split
from tasks.images import CROP_AND_FLIP
from tasks.tensor_data import TensorData
from tests.benchmarks.paired import Mark, Paired


class RandomImages(UnlearningDataModule):
    """Random pixels and labels of ten classes, divided as a task divides its samples.

    Args:
        forget: samples to forget.
        retain: samples to retain.
        shape: of an image, `(C, H, W)`.
        augmented: crop and flip, as for CIFAR.
        **kwargs: see UnlearningDataModule.
    """

    def __init__(
        self,
        forget: int = 0,
        retain: int = 0,
        shape: tuple[int, int, int] = (3, 32, 32),
        augmented: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sizes = {"forget": forget, "retain": retain, "test": 64}
        self.shape = shape
        self.augmented = augmented

    def make(self) -> None:
        total = sum(self.sizes.values())
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (total, *self.shape), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 10, (total,), generator=generator)
        data = TensorData({"image": images, "label": labels}, np.arange(total))
        bounds = np.cumsum([0, *self.sizes.values()])
        parts = {name: np.arange(bounds[at], bounds[at + 1]) for at, name in enumerate(self.sizes)}
        self.split = Split("random images", parts, {}, 0)
        self.datasets = {
            name: data.view(indices) for name, indices in parts.items() if len(indices)
        }
        self.augmentation = CROP_AND_FLIP if self.augmented else None


class Marks(Callback):
    """Marks of a measurement at the start of training steps and at the end of the fit.

    What comes before a fit's first step is not counted.

    Args:
        mark: called at each of these.
        interval: steps between two marks.
    """

    def __init__(self, mark: Mark, interval: int = 1) -> None:
        self.mark = mark
        self.interval = interval
        self.begun = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % self.interval == 0:
            self.mark(counted=self.begun)
            self.begun = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.mark()


def trainer(epochs: int, *callbacks: Callback, **changes: Any) -> Trainer:
    """As `mu fit` makes one on a CPU, without files, bar and curves."""
    defaults: dict[str, Any] = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
    }
    return Trainer(callbacks=list(callbacks), **{**defaults, **changes})


def resnet20(**changes: Any) -> Classifier:
    """A ResNet-20 for CIFAR; every call gives the same weights."""
    return Classifier("resnet20_cifar", mean="cifar10", init_seed=0, **changes)


@pytest.fixture
def measured(benchmark: Any) -> Callable[[Callable[[], Paired]], Paired]:
    """Runs a measurement once, under pytest-benchmark, which is what `make bench` selects by."""

    def run(work: Callable[[], Paired]) -> Paired:
        return benchmark.pedantic(work, rounds=1, iterations=1)

    return run


@pytest.fixture
def say(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Prints numbers in one line and keeps them in the benchmark's record."""

    def line(text: str, **values: float) -> None:
        benchmark.extra_info.update(values)
        print(f"\n{request.node.name}: {text}", flush=True)

    return line
