"""Learning-rate schedules that know the length of the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mu.utils.errors import InputError


class LRSchedule:
    """A multiplier of the learning rate for each optimizer step; subclasses are values that
    override `factor`.

    The base is no dataclass, because jsonargparse takes no subclass where a dataclass is asked for.
    """

    def factor(self, done: float) -> float:
        """Multiplier when the share `done` in [0, 1) of the run's steps has been made."""
        raise TypeError(f"{type(self).__name__} does not override factor().")

    def bind(self, optimizer: Optimizer, steps: int) -> LambdaLR:
        """A torch scheduler, stepped once an optimizer step."""
        if steps < 1:
            raise InputError(
                "a learning-rate schedule needs a run of known length; set trainer.max_epochs."
            )
        return LambdaLR(optimizer, lambda step: self.factor(min(step / steps, 1.0)))


@dataclass(frozen=True)
class OneCycle(LRSchedule):
    """Linear from `start` to 1 over the first `warmup` of the run, then linear to `end` (Smith and
    Topin, 2017).
    """

    warmup: float = 0.2
    start: float = 0.1
    end: float = 0.0

    def factor(self, done: float) -> float:
        if done < self.warmup:
            return self.start + (1 - self.start) * done / self.warmup
        return self.end + (1 - self.end) * (1 - done) / (1 - self.warmup)


@dataclass(frozen=True)
class Cosine(LRSchedule):
    """Half a cosine from 1 to `end`, after a linear warm-up over the first `warmup` of the run."""

    warmup: float = 0.0
    end: float = 0.0

    def factor(self, done: float) -> float:
        if done < self.warmup:
            return done / self.warmup
        x = (done - self.warmup) / (1 - self.warmup)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * x)) / 2


@dataclass(frozen=True)
class Steps(LRSchedule):
    """Times `gamma` at each share of the run in `at` (0.5 and 0.75 for 91 and 136 of 182
    epochs).
    """

    at: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1

    def factor(self, done: float) -> float:
        return self.gamma ** sum(done >= place for place in self.at)
