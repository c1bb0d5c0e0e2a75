"""Stopwatch of the stages of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class Stopwatch:
    """Stopwatch of nested stages; the outer stage excludes the inner, so they add up."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._running: list[tuple[str, float]] = []

    def start(self, stage: str) -> None:
        """Start a stage; the running stage is paused."""
        now = _now()
        if self._running:
            self._book(now)
        self._running.append((stage, now))

    def stop(self, stage: str) -> None:
        """Stop a stage, and the stages that still run inside it."""
        if stage not in [name for name, _ in self._running]:
            return
        name = ""
        while name != stage:
            now = _now()
            self._book(now)
            name, _ = self._running.pop()
            if self._running:
                self._running[-1] = (self._running[-1][0], now)

    def _book(self, now: float) -> None:
        stage, since = self._running[-1]
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - since
        self._running[-1] = (stage, now)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Context that times a block as a stage."""
        self.start(stage)
        try:
            yield
        finally:
            self.stop(stage)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add the seconds of an earlier part of the run, before it was resumed."""
        for stage, value in seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + float(value)

    def seconds(self) -> dict[str, float]:
        """Seconds by stage so far."""
        if self._running:
            self._book(_now())
        return dict(self._seconds)


def _now() -> float:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        # else a stage includes kernels that the stage before it queued
        torch.cuda.synchronize()
    return time.perf_counter()
