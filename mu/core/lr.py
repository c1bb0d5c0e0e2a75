"""Learning-rate schedules over a whole run: one-cycle, cosine and steps.

They are given in shares of the run, because a config does not know a plan's number of steps, and
that may differ from epoch to epoch. torch's and transformers' schedulers work otherwise:
`get_linear_schedule_with_warmup` and `get_cosine_schedule_with_warmup` round the warm-up to whole
steps (up to 3 % off in a run of 97 steps) and start at 0; torch's `OneCycleLR` reaches its top and
its end one step earlier, and moves the momentum too; `MultiStepLR` takes numbers of epochs or steps
and multiplies again and again, so that its last digits differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mu.utils.errors import InputError, MissingMethodError


class LRSchedule:
    """Base of learning-rate schedules: a multiplier for each optimizer step.

    A subclass overrides `factor`. The base is no dataclass, because jsonargparse takes no subclass
    where a dataclass is asked for.
    """

    def factor(self, progress: float) -> float:
        """Multiplier of the learning rate.

        Args:
            progress: share of the run's optimizer steps made so far, in [0, 1].
        """
        raise MissingMethodError(f"{type(self).__name__} does not override factor().")

    def bind(self, optimizer: Optimizer, steps: int) -> LambdaLR:
        """A torch scheduler for `steps` optimizer steps, to be stepped after each of them.

        Raises:
            InputError: the run has no known length.
        """
        if steps < 1:
            raise InputError(
                "a learning-rate schedule needs a run of known length; set trainer.max_epochs."
            )
        return LambdaLR(optimizer, lambda step: self.factor(min(step / steps, 1.0)))


@dataclass(frozen=True)
class OneCycle(LRSchedule):
    """Linear warm-up from `start` to 1, then linear decay to `end` (Smith and Topin, 2017).

    Args:
        warmup: share of the run with warm-up, in [0, 1).
        start: first multiplier.
        end: last multiplier.

    Example:
        >>> schedule = OneCycle(warmup=0.5, start=0.0)
        >>> [schedule.factor(progress) for progress in (0.0, 0.25, 0.5, 0.75)]
        [0.0, 0.5, 1.0, 0.5]
    """

    warmup: float = 0.2
    start: float = 0.1
    end: float = 0.0

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return self.start + (1 - self.start) * progress / self.warmup
        return self.end + (1 - self.end) * (1 - progress) / (1 - self.warmup)


@dataclass(frozen=True)
class Cosine(LRSchedule):
    """Half a cosine from 1 to `end`, after a linear warm-up from 0.

    Args:
        warmup: share of the run with warm-up, in [0, 1).
        end: last multiplier.

    Example:
        >>> [round(Cosine().factor(progress), 2) for progress in (0.0, 0.5, 1.0)]
        [1.0, 0.5, 0.0]
    """

    warmup: float = 0.0
    end: float = 0.0

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        x = (progress - self.warmup) / (1 - self.warmup)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * x)) / 2


@dataclass(frozen=True)
class Steps(LRSchedule):
    """Multiplication by `gamma` at each share of the run in `at`.

    Args:
        at: shares of the run, in [0, 1]; 0.5 and 0.75 are epochs 91 and 136 of 182.
        gamma: factor of each step.

    Example:
        >>> [round(Steps().factor(progress), 3) for progress in (0.0, 0.5, 0.75)]
        [1.0, 0.1, 0.01]
    """

    at: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1

    def factor(self, progress: float) -> float:
        return self.gamma ** sum(progress >= share for share in self.at)
