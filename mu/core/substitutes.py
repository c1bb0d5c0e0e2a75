"""Laws that draw what a model should say instead of the truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mu.utils.spec import Reconstructible

if TYPE_CHECKING:
    from mu.backbones import Backbone
    from mu.data.datamodule import UnlearningDataModule


class Substitute(Reconstructible, ABC):
    """A law of substitutes. `draw` is a pure function of the samples, the seed and what `setup`
    learned from the task.
    """

    generates: bool = False
    """Whether `setup` generates substitutes, whose time counts as `cache` in the run's seconds."""

    def setup(self, backbone: Backbone, task: UnlearningDataModule | None) -> None:
        """Learn what the law needs (number of classes, mean of the targets)."""

    @abstractmethod
    def draw(self, part: dict[str, Any], seed: int) -> Any:
        """One substitute for each sample of the part: a tensor, or a nested part."""

    def total(self, part: dict[str, Any], seed: int) -> Tensor | None:
        """What the part's substitutes weigh in the optimizer's step, over its accumulated batches;
        None where the truth weighs as much.
        """
        return None
