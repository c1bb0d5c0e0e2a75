"""Ratio of the processor time of two pieces of work that take turns in one process.

Both run in a thread of their own and take turns, unit by unit (a unit is a training step, or
whatever the work marks), so that what else the machine does falls on both alike. What is counted is
the CPU time of the working thread (`time.thread_time`), because a busy machine makes wall time mean
little; with one torch thread that is all of the arithmetic, the backward pass on a CPU included.
The first rounds (start-up, caches, the libraries' first calls) are dropped. A ratio is the median
over rounds of (units of the first) / (units of the second).

The allocator is held still. By default glibc gives what is freed at the top of its heap back to the
system and faults it in again, on a ResNet-20 30 to 40 MB in every step (6 % of its time), and how
much that is hangs on which buffer happens to lie on top: two runs of the very same loop differ by 3
%.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Mark = Callable[..., None]
"""`mark()` ends a unit and lets the other side take its turn; `mark(counted=False)` throws away
what was done since the last mark.
"""
Work = Callable[[Mark], Any]
_WAIT = 600.0
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # mallopt(3)


class _OtherFailed(Exception):
    """Ends a piece of work whose counterpart has failed; the counterpart's error is raised."""


@dataclass
class Side:
    """One piece of work.

    Attributes:
        work: is called with `mark`, and calls it before its first unit and after every unit.
        seconds: of each unit, CPU time.
        result: what the work returned.
        error: what it ended with, if not well.
        done: it has ended.
        turn: it may go on.
    """

    work: Work
    seconds: list[float] = field(default_factory=list)
    result: Any = None
    error: BaseException | None = None
    done: bool = False
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@dataclass(frozen=True)
class Paired:
    """Measurements of two pieces of work.

    Attributes:
        first, second: seconds of CPU time of each round after the warm-up.
        results: what the two pieces of work returned.
        units: units in a round.
    """

    first: list[float]
    second: list[float]
    results: tuple[Any, Any]
    units: int

    @classmethod
    def joined(cls, several: Sequence[Paired]) -> Paired:
        """The rounds of several measurements as one."""
        return cls(
            [x for pair in several for x in pair.first],
            [x for pair in several for x in pair.second],
            several[-1].results,
            several[-1].units,
        )

    @property
    def ratio(self) -> float:
        """Median over rounds of first / second."""
        return statistics.median(a / b for a, b in zip(self.first, self.second, strict=True))

    @property
    def difference(self) -> float:
        """Median over rounds of (first - second), in seconds a unit."""
        return statistics.median(
            (a - b) / self.units for a, b in zip(self.first, self.second, strict=True)
        )

    @property
    def calm_difference(self) -> float:
        """First - second, in seconds a unit, of each side's quickest tenth of rounds: what it costs
        where nothing else disturbs.

        For bounds in seconds, which no ratio can hold: a busy machine takes up to three times the
        CPU time for the same work.
        """
        quick = [statistics.quantiles(side, n=10)[0] for side in (self.first, self.second)]
        return (quick[0] - quick[1]) / self.units

    def spread(self) -> str:
        """The rounds' ratios, smallest and largest, for the printed line."""
        ratios = sorted(a / b for a, b in zip(self.first, self.second, strict=True))
        return f"{len(ratios)} rounds, {ratios[0]:.3f} to {ratios[-1]:.3f}"


def hold_memory() -> None:
    """Let glibc keep what is freed, for all threads in one arena; elsewhere nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in (
            (_ARENA_MAX, 1),
            (_MMAP_THRESHOLD, 2**25),
            (_TRIM_THRESHOLD, 2**31 - 1),
        ):
            mallopt(option, value)


def paired(first: Work, second: Work, units: int = 1, warmup: int = 1) -> Paired:
    """Run both to their ends, taking turns at every mark.

    Args:
        first: e.g. a fit by a trainer (`Marks` calls `mark` there).
        second: what it is compared with; as many units.
        units: how many units make a round (the steps of an epoch).
        warmup: how many rounds are dropped.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(1)
    hold_memory()
    sides = Side(first), Side(second)
    workers = [threading.Thread(target=_run, args=pair) for pair in (sides, sides[::-1])]
    gc.collect()
    sides[0].turn.release()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    torch.set_num_threads(threads_before)
    for side in sides:
        if side.error is not None and not isinstance(side.error, _OtherFailed):
            raise side.error
    counts = [len(side.seconds) for side in sides]
    assert counts[0] == counts[1] and counts[0] % units == 0 and counts[0] > warmup * units, (
        f"{counts} units, in rounds of {units}"
    )
    rounds = [
        [sum(side.seconds[at : at + units]) for at in range(warmup * units, counts[0], units)]
        for side in sides
    ]
    return Paired(rounds[0], rounds[1], (sides[0].result, sides[1].result), units)


def _run(side: Side, other: Side) -> None:
    since: float | None = None

    def mark(counted: bool = True) -> None:
        nonlocal since
        now = time.thread_time()
        if since is not None and counted:
            side.seconds.append(now - since)
        if not other.done:
            other.turn.release()
            _wait(side)
        if other.error is not None:
            raise _OtherFailed
        since = time.thread_time()

    try:
        _wait(side)
        if other.error is None:
            side.result = side.work(mark)
    except BaseException as error:  # raised again in the caller's thread
        side.error = error
    finally:
        side.done = True
        other.turn.release()


def _wait(side: Side) -> None:
    if not side.turn.acquire(timeout=_WAIT):
        raise TimeoutError(f"no turn came in {_WAIT:.0f} s")
