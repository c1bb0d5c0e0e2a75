"""Schedules and plans: in which order a method sees the forget and the retain part.

A plan is a pure function of (seed, epoch, sizes, schedule, batch sizes); every rank computes the
same one and takes its rows. Each part is an endless stream: permutation after permutation of its
samples. The stream never restarts, so a part that is cycled within an epoch goes through *all* its
samples before it repeats one, and `visit`, the number of permutations before, tells how often a
sample was shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from mu.utils.errors import InputError
from mu.utils.rng import stream_id

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Rows:
    """Rows of one part of a batch, on all ranks: positions in the part's dataset and how often each
    was shown before.
    """

    positions: np.ndarray
    visits: np.ndarray


@dataclass(frozen=True)
class Step:
    """One global batch: its parts, and the phase of the schedule that it belongs to."""

    parts: Mapping[str, Rows]
    phase: int = 0
    joint: bool = False
    """The parts are one batch (a union): losses are averaged over both together."""
    window: tuple[Step, ...] = ()
    """All the batches whose gradients are accumulated with this one's; empty where it makes a step
    of the optimizer alone.
    """


class DataPlan:
    """Base of all schedules. `phases(epoch)` says what an epoch consists of; subclasses are values,
    compared by their fields.

    The base is no dataclass, because jsonargparse takes no subclass where a dataclass is asked for.
    """

    def phases(self, epoch: int) -> tuple[DataPlan, ...]:
        """The simple schedules that run one after the other in this epoch."""
        return (self,)

    def reads(self) -> frozenset[str]:
        """Names of the parts that the schedule shows."""
        raise TypeError(f"{type(self).__name__} does not say which parts it reads.")

    def steps(self, epoch: int, sizes: Sizes, batch: Sizes, seed: int) -> Iterator[Step]:
        """The batches of one phase in one epoch."""
        raise TypeError(f"{type(self).__name__} does not say how it makes batches.")


@dataclass(frozen=True)
class _Single(DataPlan):
    shuffle: bool = True
    batch_size: int | None = None
    """Overrides the task's batch size (per-sample Fisher and WoodFisher need 1)."""
    limit: int | None = None
    """Stop after so many samples (WoodFisher's reference code reads 1,002)."""
    epochs: int | None = None
    """Shown in the first so many epochs only (SCRUB's max-steps)."""
    after: int = 0
    """Shown from this epoch on (0-based)."""

    def phases(self, epoch: int) -> tuple[DataPlan, ...]:
        last = self.after + self.epochs if self.epochs is not None else epoch + 1
        return (self,) if self.after <= epoch < last else ()


@dataclass(frozen=True)
class _One(_Single):
    part: str = field(default="retain", init=False)

    def reads(self) -> frozenset[str]:
        return frozenset({self.part})

    def steps(self, epoch: int, sizes: Sizes, batch: Sizes, seed: int) -> Iterator[Step]:
        total = sizes[self.part]
        size = self.batch_size or batch[self.part]
        stream = Stream(self.part, total, seed, self.shuffle)
        count = min(total, self.limit or total)
        for start in range(0, count, size):
            yield Step({self.part: stream.take(epoch * total + start, min(size, count - start))})


@dataclass(frozen=True)
class Forget(_One):
    """Every forget sample once an epoch."""

    part: str = field(default="forget", init=False)


@dataclass(frozen=True)
class Retain(_One):
    """Every retain sample once an epoch."""


@dataclass(frozen=True)
class Everything(_One):
    """Every training sample once an epoch, in an order that does not depend on what will be
    forgotten (trains the original).
    """

    part: str = field(default="train", init=False)


@dataclass(frozen=True)
class Paired(_Single):
    """One forget batch beside one retain batch in every step; the shorter part is cycled.

    `length` names the part that an epoch shows exactly once (`max`: the one with more batches);
    `limit` counts its samples.
    """

    length: Literal["forget", "retain", "max"] = "retain"

    def __post_init__(self) -> None:
        if self.length not in ("forget", "retain", "max"):
            raise InputError(
                f"the length of Paired is {self.length!r}; it is forget, retain or max."
            )

    def reads(self) -> frozenset[str]:
        return frozenset({"forget", "retain"})

    def steps(self, epoch: int, sizes: Sizes, batch: Sizes, seed: int) -> Iterator[Step]:
        size = {part: self.batch_size or batch[part] for part in ("forget", "retain")}
        count = {part: -(-sizes[part] // size[part]) for part in size}
        lead = max(count, key=lambda part: count[part]) if self.length == "max" else self.length
        other = "retain" if lead == "forget" else "forget"
        streams = {part: Stream(part, sizes[part], seed, self.shuffle) for part in size}
        total = min(sizes[lead], self.limit or sizes[lead])
        steps = -(-total // size[lead])
        for step in range(steps):
            start = step * size[lead]
            done = (epoch * steps + step) * size[other]
            yield Step(
                {
                    lead: streams[lead].take(
                        epoch * sizes[lead] + start, min(size[lead], total - start)
                    ),
                    other: streams[other].take(done, size[other]),
                }
            )


@dataclass(frozen=True)
class Union(_Single):
    """Forget and retain shuffled together, each sample once an epoch.

    `retain_fraction` below 1 takes a random share of retain in each epoch (Bad Teacher uses 0.3).
    """

    retain_fraction: float = 1.0
    redraw: bool = True
    """Draw the share of retain anew in each epoch."""

    def reads(self) -> frozenset[str]:
        return frozenset({"forget", "retain"})

    def steps(self, epoch: int, sizes: Sizes, batch: Sizes, seed: int) -> Iterator[Step]:
        kept = round(self.retain_fraction * sizes["retain"])
        draw = epoch if self.redraw else 0
        retained = _permutation(
            seed, "union-retain", draw, sizes["retain"], shuffle=kept < sizes["retain"]
        )[:kept]
        mixed = np.concatenate([np.arange(sizes["forget"]), sizes["forget"] + retained])
        mixed = mixed[_permutation(seed, "union", epoch, len(mixed), self.shuffle)][: self.limit]
        size = self.batch_size or batch["retain"]
        for start in range(0, len(mixed), size):
            rows = mixed[start : start + size]
            forget = rows[rows < sizes["forget"]]
            retain = rows[rows >= sizes["forget"]] - sizes["forget"]
            parts = {"forget": forget, "retain": retain}
            yield Step(
                {
                    name: Rows(ids, np.full(len(ids), epoch))
                    for name, ids in parts.items()
                    if len(ids)
                },
                joint=True,
            )


@dataclass(frozen=True)
class Phases(DataPlan):
    """Several schedules one after the other within each epoch: `Phases(Forget(), Retain())`."""

    parts: tuple[DataPlan, ...]

    def __init__(self, *schedules: DataPlan, parts: Sequence[DataPlan] = ()) -> None:
        # by name in files, which know no variable arguments
        object.__setattr__(self, "parts", (*schedules, *parts))

    def phases(self, epoch: int) -> tuple[DataPlan, ...]:
        return tuple(inner for part in self.parts for inner in part.phases(epoch))

    def reads(self) -> frozenset[str]:
        return frozenset().union(*(part.reads() for part in self.parts))


@dataclass(frozen=True)
class Stream:
    """The endless order of one part: permutation `c` is drawn from (seed, part, c)."""

    part: str
    size: int
    seed: int
    shuffle: bool = True

    def take(self, start: int, count: int) -> Rows:
        """`count` rows from place `start` of the stream."""
        cycles, offsets = np.divmod(np.arange(start, start + count), self.size)
        if not self.shuffle:
            return Rows(offsets, cycles)
        first = start // self.size
        last = (start + count - 1) // self.size
        positions = np.empty(count, dtype=np.int64)
        for cycle in range(first, last + 1):
            here = slice(None) if first == last else cycles == cycle
            positions[here] = _permutation(self.seed, self.part, cycle, self.size, self.shuffle)[
                offsets[here]
            ]
        return Rows(positions, cycles)


_LAST: dict[
    tuple[int, str, int], np.ndarray
] = {}  # permutations in use: every step of an epoch asks for the same one


def _permutation(seed: int, part: str, cycle: int, size: int, shuffle: bool) -> np.ndarray:
    if not shuffle:
        return np.arange(size)
    key = (seed, f"{part}/{size}", cycle)
    if key not in _LAST:
        while len(_LAST) >= 8:
            _LAST.pop(next(iter(_LAST)))
        _LAST[key] = np.random.Generator(np.random.PCG64(stream_id("plan", *key))).permutation(size)
    return _LAST[key]


def plan_steps(plan: DataPlan, epoch: int, sizes: Sizes, batch: Sizes, seed: int) -> list[Step]:
    """All global batches of one epoch.

    Args:
        plan: the method's schedule.
        epoch: 0-based.
        sizes: number of samples of each part that the task has.
        batch: global batch size of each part.
        seed: the run's seed.

    Raises:
        InputError: when the schedule reads a part that the task does not have.
    """
    missing = sorted(plan.reads() - {part for part, size in sizes.items() if size})
    if missing:
        raise InputError(
            f"the method reads the {' and '.join(missing)} part, which the task does not give."
        )
    numbered = _numbered(plan)
    steps: list[Step] = []
    for number, phase in enumerate(numbered):
        # phases that show the same samples have orders of their own, and count visits in turn: k, K
        # + k, 2 K + k, ... for the k-th of K
        rivals = [
            other for other, rival in enumerate(numbered) if _samples(rival) & _samples(phase)
        ]
        own = seed if rivals[0] == number else stream_id("phase", number, seed)
        every, turn = (len(numbered), number) if len(rivals) > 1 else (1, 0)
        for inner in phase.phases(epoch):
            for step in inner.steps(epoch, sizes, batch, own):
                parts = {
                    name: Rows(rows.positions, rows.visits * every + turn)
                    for name, rows in step.parts.items()
                }
                steps.append(Step(parts, number, step.joint))
    return steps


def together(steps: list[Step], accumulate: int) -> list[Step]:
    """The same batches, each with those that make one step of the optimizer with it."""
    if accumulate == 1:
        return steps
    windows = [
        tuple(steps[start : start + accumulate]) for start in range(0, len(steps), accumulate)
    ]
    return [replace(step, window=window) for window in windows for step in window]


def _samples(plan: DataPlan) -> frozenset[str]:
    """The parts whose samples a schedule shows; `train` is both others."""
    reads = plan.reads()
    return reads | {"forget", "retain"} if "train" in reads else reads


def _numbered(plan: DataPlan) -> tuple[DataPlan, ...]:
    """The phases as the method wrote them, so that a phase keeps its number in epochs where another
    is left out.
    """
    if isinstance(plan, Phases):
        return tuple(inner for part in plan.parts for inner in _numbered(part))
    return (plan,)
