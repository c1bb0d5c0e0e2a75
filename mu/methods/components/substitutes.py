"""Substitute targets: the task's, random labels, next labels, Gaussian values."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from mu.backbones import Backbone
from mu.core.substitutes import Substitute
from mu.data.datamodule import UnlearningDataModule
from mu.utils import rng
from mu.utils.errors import InputError


class GivenByTask(Substitute):
    """The `substitute` entry of the task's forget samples (an anchor prompt, a refusal)."""

    def draw(self, part: dict[str, Any], seed: int) -> Tensor:
        if "substitute" not in part:
            raise InputError(
                "the method takes substitutes from the task, but its forget samples have no "
                "`substitute`."
            )
        return part["substitute"]


class UniformLabel(Substitute):
    """Random labels: a uniformly drawn class.

    Args:
        exclude_true: leave out the sample's true class (Amnesiac unlearning, Graves et al. 2021;
            ports in Bad Teacher and SSD). The OPTML code draws over all classes, so that 1 in K
            keeps its label.
        redraw: draw at each visit of the sample (OPTML); False draws once.
    """

    def __init__(self, exclude_true: bool = False, redraw: bool = True) -> None:
        self.exclude_true = exclude_true
        self.redraw = redraw
        self.num_classes = 0

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        classes = getattr(backbone, "num_classes", None)
        if not classes or classes < 2:
            raise InputError(
                "random labels need a classifier with at least two classes; "
                f"{type(backbone).__name__} has none."
            )
        self.num_classes = int(classes)

    def draw(self, part: dict[str, Any], seed: int) -> Tensor:
        visit = part["visit"] if self.redraw else 0
        if not self.exclude_true:
            return rng.integers(seed, part["index"], visit, "substitute-label", self.num_classes)
        step = rng.integers(seed, part["index"], visit, "substitute-label", self.num_classes - 1)
        return (part["label"] + 1 + step) % self.num_classes


class NextLabel(UniformLabel):
    """The class after the true one, the first class after the last.

    SalUn's released diffusion code calls it a random label.
    """

    def __init__(self) -> None:
        super().__init__(exclude_true=True, redraw=False)

    def draw(self, part: dict[str, Any], seed: int) -> Tensor:
        return (part["label"] + 1) % self.num_classes


class GaussianTarget(Substitute):
    """Gaussian targets for regression: one draw per sample from N(mean, sd) of training targets.

    Tarun et al., ICML 2023.
    """

    def __init__(self) -> None:
        self.mean = self.sd = float("nan")

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        if task is None:
            raise InputError(
                "Gaussian substitutes need a task, whose training targets give mean and standard "
                "deviation."
            )
        targets = []
        for name in ("forget", "retain"):
            data: Any = task.datasets[name]
            if "target" not in data[0]:
                raise InputError(
                    f"Gaussian substitutes need real-valued targets; {type(task).__name__} has "
                    "none."
                )
            targets += [float(data[i]["target"]) for i in range(len(data))]
        self.mean = float(np.mean(targets))
        self.sd = float(np.std(targets))

    def draw(self, part: dict[str, Any], seed: int) -> Tensor:
        return self.mean + self.sd * rng.normal(seed, part["index"], 0, "substitute-target")
