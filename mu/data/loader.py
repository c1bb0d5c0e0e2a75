"""Loaders: one that executes a plan (fit), one that shows a split once (everything else)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from mu.data.batch import Augment, Batch, converted, fetch
from mu.data.plan import DataPlan, Rows, Step, plan_steps, together


class StepRows:
    """Which samples of a part make up a step of the optimizer, on all ranks.

    Args:
        index: stable indices.
        visit: how often each was shown before.
        accumulate: over how many batches the step is accumulated.
    """

    def __init__(self, index: np.ndarray, visit: np.ndarray, accumulate: int) -> None:
        self.index = index
        self.visit = visit
        self.accumulate = accumulate


class PlannedBatches(Dataset):
    """Turns a step of the plan into this rank's share of the batch."""

    def __init__(
        self,
        parts: Mapping[str, Dataset],
        augment: Augment | None,
        seed: int,
        rank: int,
        world: int,
        accumulate: int,
    ) -> None:
        self.parts = dict(parts)
        self.augment = augment
        self.seed = seed
        self.rank = rank
        self.world = world
        self.accumulate = accumulate

    def __getitem__(self, step: Step | None) -> dict[str, Any]:
        if step is None:  # another rank has one batch more
            return {"phase": -1}
        batch: dict[str, Any] = {"phase": step.phase}
        for name, rows in step.parts.items():
            count, total = self._totals(step, name)
            batch[name] = self._share(name, rows) | {
                "count": torch.tensor(count),
                "total": torch.tensor(total),
            }
            if getattr(self.parts[name], "weights", None) is not None:
                batch[name]["step"] = self._step(step, name)
            if step.joint:
                batch[name]["joint"] = (
                    True  # not a tensor, so that asking for it does not wait for a device
                )
        return batch

    def _totals(self, step: Step, name: str) -> tuple[float, float]:
        """Rows and weight of a part (of both parts in a union) in the optimizer's step, over the
        number of its accumulated batches.

        The trainer divides every accumulated loss by that number, and so it does in a shorter last
        step too.
        """
        rows = [
            (part, rows)
            for other in step.window or (step,)
            for part, rows in other.parts.items()
            if part == name or step.joint
        ]
        count = sum(len(r.positions) for _, r in rows)
        total = sum(self._weight(part, r) for part, r in rows)
        return count / self.accumulate, total / self.accumulate

    def _step(self, step: Step, name: str) -> StepRows:
        """The part's rows in the optimizer's step on all ranks, from which the weight of what
        replaces them follows.
        """
        rows = [other.parts[name] for other in step.window or (step,) if name in other.parts]
        indices = np.asarray(self.parts[name].indices)  # type: ignore[attr-defined]
        return StepRows(
            np.concatenate([indices[r.positions] for r in rows]),
            np.concatenate([r.visits for r in rows]),
            self.accumulate,
        )

    def _weight(self, name: str, rows: Rows) -> float:
        weights = getattr(self.parts[name], "weights", None)
        return float(
            len(rows.positions) if weights is None else np.asarray(weights)[rows.positions].sum()
        )

    def _share(self, name: str, rows: Rows) -> Batch:
        positions = rows.positions[self.rank :: self.world]
        visits = rows.visits[self.rank :: self.world]
        padded = len(positions) == 0
        # every rank takes every step; a rank without a row of its own takes one that does not count
        if padded:
            positions = rows.positions[:1]
            visits = rows.visits[:1]
        part = fetch(self.parts[name], positions)
        part["visit"] = torch.as_tensor(visits, dtype=torch.int64)
        if padded:
            part["padded"] = torch.ones(1, dtype=torch.bool)
        return self.augment(part, self.seed) if self.augment else part


class PlanSampler(DistributedSampler):
    """Yields the steps of an epoch's plan. A DistributedSampler by type, so that Lightning does not
    put its own in our place.
    """

    def __init__(self, steps: Callable[[int], list[Step | None]]) -> None:
        self._steps = steps
        self._plan: list[Step | None] | None = None
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        if epoch != self.epoch:
            self.epoch = epoch
            self._plan = None

    @property
    def steps(self) -> list[Step | None]:
        """This epoch's steps on this rank."""
        if self._plan is None:
            self._plan = self._steps(self.epoch)
        return self._plan

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Step | None]:
        return iter(self.steps[self.start :])


class PlanLoader(DataLoader):
    """Executes a plan. Its state is the number of batches served, which Lightning puts into
    checkpoints; a resumed loader skips them.

    Args:
        parts: datasets by part name.
        plan: in which order they are shown.
        batch_size: *global* batch size of each part; every rank takes its rows.
        seed: decides the order.
        augment: applied to each part after it is fetched, keyed by (seed, index, visit); None shows
            the data as they are.
        rank: this process.
        world: number of processes.
        shard: `rows` divides each batch among ranks; `batches` gives whole batches to ranks in
            turn, for statistics that are not linear in the batch (ranks that run out get a batch
            without parts).
        workers: number of loader processes.
        pin_memory: as in torch.
        accumulate: how many batches make a step of the optimizer.
    """

    def __init__(
        self,
        parts: Mapping[str, Dataset],
        plan: DataPlan,
        batch_size: Mapping[str, int],
        seed: int,
        *,
        augment: Augment | None = None,
        rank: int = 0,
        world: int = 1,
        shard: str = "rows",
        workers: int = 0,
        pin_memory: bool = False,
        accumulate: int = 1,
    ) -> None:
        sizes = {name: len(data) for name, data in parts.items()}  # type: ignore[arg-type]

        def steps(epoch: int) -> list[Step | None]:
            every: list[Step | None] = list(
                together(plan_steps(plan, epoch, sizes, batch_size, seed), accumulate)
            )
            if shard == "rows":
                return every
            every += [None] * (-len(every) % world)
            return every[rank::world]

        row_rank, row_world = (rank, world) if shard == "rows" else (0, 1)
        self.plan_sampler = PlanSampler(steps)
        self.served = 0
        self._skip = 0
        super().__init__(
            PlannedBatches(parts, augment, seed, row_rank, row_world, accumulate),
            batch_size=None,
            sampler=self.plan_sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            collate_fn=converted,
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        self.served = self._skip
        self.plan_sampler.start = self._skip
        self._skip = 0
        for batch in super().__iter__():
            self.served += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches served in this epoch; nothing when the epoch is complete."""
        return {"served": self.served if self.served < len(self.plan_sampler) else 0}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Skip so many batches at the next start."""
        self._skip = int(state["served"])


class EvalBatches(Dataset):
    """A split in fixed batches, each marked with the split's name."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        self.dataset = dataset
        self.name = name

    def __getitem__(self, rows: Rows) -> Batch:
        part = fetch(self.dataset, rows.positions)
        count = len(rows.positions)
        part["visit"] = torch.zeros(count, dtype=torch.int64)
        part["padded"] = torch.as_tensor(rows.visits != 0)
        part["split"] = self.name
        return part


class _EvalSampler(DistributedSampler):
    """Contiguous batches dealt to ranks in turn; a rank that would run out gets the last batch
    again, marked as padded.
    """

    def __init__(self, size: int, batch_size: int, rank: int, world: int) -> None:
        batches = [
            np.arange(start, min(start + batch_size, size)) for start in range(0, size, batch_size)
        ]
        rounds = -(-len(batches) // world)
        self.batches = []
        for turn in range(rounds):
            number = turn * world + rank
            real = number < len(batches)
            positions = batches[number] if real else batches[-1][:1]
            self.batches.append(Rows(positions, np.full(len(positions), 0 if real else 1)))

    def set_epoch(self, epoch: int) -> None:
        """Evaluation has one order."""

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Rows]:
        return iter(self.batches)


class EvalLoader(DataLoader):
    """Shows a split once, in order, without augmentation; each sample is real on exactly one rank,
    others are marked `padded`.
    """

    def __init__(
        self,
        dataset: Dataset,
        name: str,
        batch_size: int,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        sampler = _EvalSampler(len(dataset), batch_size, rank, world)  # type: ignore[arg-type]
        super().__init__(
            EvalBatches(dataset, name),
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            pin_memory=pin_memory,
            collate_fn=converted,
        )


class PassthroughLoader:
    """A loader that the trainer takes as it is. (In predict, it would build any DataLoader anew,
    around a sampler of its own.)
    """

    def __init__(self, loader: EvalLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.loader)
