"""Data plans: the order in which a method sees the forget and the retain part.

The batches of an epoch are a pure function of (seed, epoch, sizes, plan, batch sizes); every rank
computes the same ones and takes its rows. Each part is an endless stream: permutation after
permutation of its samples. The stream never restarts, so a part that is cycled within an epoch goes
through *all* its samples before it repeats one, and `visit`, the number of permutations before, is
how often a sample has occurred.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from mu.utils.errors import InputError, MissingMethodError
from mu.utils.rng import stream_id

Sizes = Mapping[str, int]
"""Numbers of samples by part."""


@dataclass(frozen=True)
class Rows:
    """Rows of one part of a batch, on all ranks.

    Attributes:
        positions: `[B]`, positions in the part's dataset.
        visits: `[B]`, how often each sample has occurred before.
    """

    positions: np.ndarray
    visits: np.ndarray


@dataclass(frozen=True)
class Step:
    """One global batch: its parts, and the phase of the plan that it belongs to."""

    parts: Mapping[str, Rows]
    phase: int = 0
    joint: bool = False
    """Whether the parts are a union: losses are averaged over both together."""
    window: tuple[Step, ...] = ()
    """The batches whose gradients are accumulated with this one's; empty without accumulation."""
    position: int = 0
    """Position in the window."""


class DataPlan:
    """Base of all data plans; subclasses are values, compared by their fields.

    `phases(epoch)` gives the simple plans of which an epoch consists. The base is no dataclass,
    because jsonargparse takes no subclass where a dataclass is asked for.
    """

    def phases(self, epoch: int) -> tuple[DataPlan, ...]:
        """The simple plans that run one after the other in this epoch."""
        return (self,)

    def reads(self) -> frozenset[str]:
        """Names of the parts that the plan reads."""
        raise MissingMethodError(f"{type(self).__name__} does not override reads().")

    def steps(self, epoch: int, sizes: Sizes, batch: Sizes, seed: int) -> Iterator[Step]:
        """The batches of one phase in one epoch."""
        raise MissingMethodError(f"{type(self).__name__} does not override steps().")


@dataclass(frozen=True)
class _SimplePlan(DataPlan):
    """A plan of a single phase, with its settings."""

    shuffle: bool = True
    batch_size: int | None = None
    """Overrides the task's batch size (per-sample Fisher and WoodFisher need 1)."""
    limit: int | None = None
    """Stop after so many samples (WoodFisher's reference code reads 1,002)."""
    epochs: int | None = None
    """Run in so many epochs only (SCRUB's max-steps)."""
    after: int = 0
    """Run from this epoch on (0-based)."""
    by_label: bool = False
    """Whether unshuffled samples come label by label; the loader, which has the labels, sorts."""

    def phases(self, epoch: int) -> tuple[DataPlan, ...]:
        last = self.after + self.epochs if self.epochs is not None else epoch + 1
        return (self,) if self.after <= epoch < last else ()


@dataclass(frozen=True)
class _OnePart(_SimplePlan):
    """Each sample of one part once an epoch."""

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
class Forget(_OnePart):
    """Each forget sample once an epoch."""

    part: str = field(default="forget", init=False)


@dataclass(frozen=True)
class Retain(_OnePart):
    """Each retain sample once an epoch."""


@dataclass(frozen=True)
class Everything(_OnePart):
    """Each training sample once an epoch, in an order that does not depend on the forget set.

    It trains the original.
    """

    part: str = field(default="train", init=False)


@dataclass(frozen=True)
class Paired(_SimplePlan):
    """One forget batch and one retain batch in every step; the shorter part is cycled."""

    length: Literal["forget", "retain", "max"] = "retain"
    """The part that an epoch goes through exactly once (`max`: the one with more batches); `limit`
    counts its samples."""

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
            rows = min(size[lead], total - start)
            lead_rows = streams[lead].take(epoch * sizes[lead] + start, rows)
            other_rows = streams[other].take((epoch * steps + step) * size[other], size[other])
            yield Step({lead: lead_rows, other: other_rows})


@dataclass(frozen=True)
class Union(_SimplePlan):
    """Forget and retain shuffled together, each sample once an epoch.

    Unshuffled, it is one list of retain, then forget, cut into batches. `retain_fraction` below 1
    takes a random share of retain in each epoch (Bad Teacher uses 0.3).
    """

    retain_fraction: float = 1.0
    redraw: bool = True
    """Whether the share of retain is drawn anew in each epoch."""

    def reads(self) -> frozenset[str]:
        return frozenset({"forget", "retain"})

    def steps(self, epoch: int, sizes: Sizes, batch: Sizes, seed: int) -> Iterator[Step]:
        # this epoch's share of retain
        count = round(self.retain_fraction * sizes["retain"])
        draw = epoch if self.redraw else 0
        retained = _permutation(
            seed, "union-retain", draw, sizes["retain"], shuffle=count < sizes["retain"]
        )[:count]
        # forget and retain in one order
        mixed = np.concatenate([np.arange(sizes["forget"]), sizes["forget"] + retained])
        if self.shuffle:
            mixed = mixed[_permutation(seed, "union", epoch, len(mixed), shuffle=True)]
        else:
            mixed = np.roll(mixed, -sizes["forget"])
        mixed = mixed[: self.limit]
        size = self.batch_size or batch["retain"]
        for start in range(0, len(mixed), size):
            rows = mixed[start : start + size]
            forget = rows[rows < sizes["forget"]]
            retain = rows[rows >= sizes["forget"]] - sizes["forget"]
            parts = {
                name: Rows(positions, np.full(len(positions), epoch))
                for name, positions in (("forget", forget), ("retain", retain))
                if len(positions)
            }
            yield Step(parts, joint=True)


@dataclass(frozen=True)
class Phases(DataPlan):
    """Several plans one after the other within each epoch: `Phases(Forget(), Retain())`."""

    parts: tuple[DataPlan, ...]

    def __init__(self, *plans: DataPlan, parts: Sequence[DataPlan] = ()) -> None:
        # config files, which have no variable arguments, give `parts`
        object.__setattr__(self, "parts", (*plans, *parts))

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
        """`count` rows from position `start` of the stream.

        Example:
            >>> Stream("retain", size=3, seed=0, shuffle=False).take(2, 3).positions.tolist()
            [2, 0, 1]
        """
        cycles, offsets = np.divmod(np.arange(start, start + count), self.size)
        if not self.shuffle:
            return Rows(offsets, cycles)
        first = start // self.size
        last = (start + count - 1) // self.size
        positions = np.empty(count, dtype=np.int64)
        for cycle in range(first, last + 1):
            selected = slice(None) if first == last else cycles == cycle
            order = _permutation(self.seed, self.part, cycle, self.size, self.shuffle)
            positions[selected] = order[offsets[selected]]
        return Rows(positions, cycles)


# every step of an epoch asks for the same permutation
_PERMUTATIONS: dict[tuple[int, str, int], np.ndarray] = {}


def _permutation(seed: int, part: str, cycle: int, size: int, shuffle: bool) -> np.ndarray:
    if not shuffle:
        return np.arange(size)
    key = (seed, f"{part}/{size}", cycle)
    if key not in _PERMUTATIONS:
        while len(_PERMUTATIONS) >= 8:
            _PERMUTATIONS.pop(next(iter(_PERMUTATIONS)))
        _PERMUTATIONS[key] = np.random.Generator(
            np.random.PCG64(stream_id("plan", *key))
        ).permutation(size)
    return _PERMUTATIONS[key]


def reads_by_label(plan: DataPlan) -> bool:
    """Whether a phase of the plan reads its samples label by label.

    >>> reads_by_label(Phases(Forget(), Retain(shuffle=False, by_label=True)))
    True
    """
    return any(map(_reads_by_label, _simple_plans(plan)))


def _reads_by_label(plan: DataPlan) -> bool:
    return isinstance(plan, _SimplePlan) and plan.by_label and not plan.shuffle


def plan_steps(
    plan: DataPlan,
    epoch: int,
    sizes: Sizes,
    batch: Sizes,
    seed: int,
    orders: Mapping[str, np.ndarray] | None = None,
) -> list[Step]:
    """All global batches of one epoch.

    Args:
        plan: the method's data plan.
        epoch: 0-based.
        sizes: number of samples of each part that the task has.
        batch: global batch size of each part.
        seed: the run's seed.
        orders: positions of each part's samples label by label, for plans that read them so.

    Raises:
        InputError: the plan reads a part that the task does not have.

    Example:
        >>> steps = plan_steps(Forget(shuffle=False), 0, {"forget": 3}, {"forget": 2}, seed=0)
        >>> [step.parts["forget"].positions.tolist() for step in steps]
        [[0, 1], [2]]
    """
    missing = sorted(plan.reads() - {part for part, size in sizes.items() if size})
    if missing:
        raise InputError(
            f"the method reads the {' and '.join(missing)} part, which the task does not give."
        )
    simple_plans = _simple_plans(plan)
    steps: list[Step] = []
    for phase, simple_plan in enumerate(simple_plans):
        # phases that read the same samples have orders of their own, and count visits in turn: k,
        # K + k, 2 K + k, ... for the k-th of K
        rivals = [
            position
            for position, rival in enumerate(simple_plans)
            if _samples(rival) & _samples(simple_plan)
        ]
        phase_seed = seed if rivals[0] == phase else stream_id("phase", phase, seed)
        stride, offset = (len(simple_plans), phase) if len(rivals) > 1 else (1, 0)
        sort = orders is not None and _reads_by_label(simple_plan)
        for inner in simple_plan.phases(epoch):
            for step in inner.steps(epoch, sizes, batch, phase_seed):
                parts = {
                    name: Rows(
                        orders[name][rows.positions] if sort and orders else rows.positions,
                        rows.visits * stride + offset,
                    )
                    for name, rows in step.parts.items()
                }
                steps.append(Step(parts, phase, step.joint))
    return steps


def accumulation_windows(
    steps: Sequence[Step], accumulate: int, limit: int | None = None
) -> list[Step]:
    """The batches with their `window`: those of the same optimizer step, at most `accumulate`.

    A window ends with its phase, so that no step mixes the gradients of two phases.

    Args:
        steps: batches of one epoch.
        accumulate: batches of a full window.
        limit: number of batches after which the epoch is stopped, and its last window with it.

    Example:
        >>> steps = [Step({}, phase) for phase in (0, 0, 0, 1, 1)]
        >>> [(len(s.window), s.position) for s in accumulation_windows(steps, 2)]
        [(2, 0), (2, 1), (1, 0), (2, 0), (2, 1)]
    """
    if accumulate == 1:
        return list(steps)
    end = len(steps) if limit is None else limit
    groups: list[list[Step]] = []
    for index, step in enumerate(steps):
        full = not groups or len(groups[-1]) == accumulate or index == end
        if full or groups[-1][-1].phase != step.phase:
            groups.append([])
        groups[-1].append(step)
    return [
        replace(step, window=tuple(window), position=position)
        for window in groups
        for position, step in enumerate(window)
    ]


def limited(batches: int, limit: int | float) -> int:
    """Batches of an epoch under a trainer's `limit_train_batches`, a number or a share.

    >>> limited(7, 3), limited(7, 0.5), limited(7, 1.0)
    (3, 3, 7)
    """
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def count_windows(steps: Iterable[Step | None]) -> int:
    """Optimizer steps of an epoch's batches, with their windows."""
    return sum(step is None or step.position == 0 for step in steps)


def _samples(plan: DataPlan) -> frozenset[str]:
    """The parts whose samples a plan reads; `train` is forget and retain."""
    reads = plan.reads()
    return reads | {"forget", "retain"} if "train" in reads else reads


def _simple_plans(plan: DataPlan) -> tuple[DataPlan, ...]:
    """The phases of all epochs; a phase keeps its position where another one is left out."""
    if isinstance(plan, Phases):
        return tuple(inner for part in plan.parts for inner in _simple_plans(part))
    return (plan,)
