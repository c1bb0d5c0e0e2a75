"""Substitute, the base of substitute targets for forget samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from mu.backbones import Backbone
from mu.data.datamodule import UnlearningDataModule
from mu.utils.spec import Reconstructible


class Substitute(Reconstructible, ABC):
    """Substitute targets for forget samples: random labels, refusals, anchor prompts.

    `draw` is a pure function of the samples, the seed, and what `setup` read from the task.
    """

    generates: bool = False
    """Whether `setup` generates substitutes, whose time counts as `cache` in the run's seconds."""

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        """Read settings from the backbone and the task (number of classes, mean of targets)."""

    @abstractmethod
    def draw(self, part: dict[str, Any], seed: int) -> Any:
        """One substitute for each of the B samples of the part: a tensor `[B]`, or a nested part.

        Args:
            part: the prepared forget part; draws are keyed by its `index` and `visit`.
            seed: of the run.
        """

    def total(self, part: dict[str, Any], seed: int) -> Tensor | None:
        """Total weight (tokens) of the part's substitutes in the optimizer step.

        None where it is that of the true targets. It is divided by the accumulated batches.
        """
        return None
