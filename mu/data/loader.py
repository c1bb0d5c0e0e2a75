"""Data loaders: of a data plan in fit, of a whole split once in validate, test and predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from mu.data.batch import Augment, Batch, fetch, to_tensors
from mu.data.plan import (
    DataPlan,
    Rows,
    Step,
    accumulation_windows,
    limited,
    plan_steps,
    reads_by_label,
)
from mu.utils.errors import InputError


class StepRows:
    """Samples of a part in one optimizer step, on all ranks and over all accumulated batches.

    Args:
        index: `[N]`, the samples' indices.
        visit: `[N]`, how often each has occurred before.
        accumulate: number of batches over which the step is accumulated, those of its window.
    """

    def __init__(self, index: np.ndarray, visit: np.ndarray, accumulate: int) -> None:
        self.index = index
        self.visit = visit
        self.accumulate = accumulate


class PlannedBatches(Dataset):
    """Dataset whose keys are steps of a plan and whose items are this rank's rows of the batch.

    Args:
        parts: datasets by part name.
        augment: applied to each part; None leaves the data as they are.
        seed: of the augmentation.
        rank: this process.
        world: number of processes.
    """

    def __init__(
        self,
        parts: Mapping[str, Dataset],
        augment: Augment | None,
        seed: int,
        rank: int,
        world: int,
    ) -> None:
        self.parts = dict(parts)
        self.augment = augment
        self.seed = seed
        self.rank = rank
        self.world = world

    def __getitem__(self, step: Step | None) -> dict[str, Any]:
        if step is None:
            return {"phase": -1}  # another rank has one batch more
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
                # no tensor, so that asking for it does not wait for a device
                batch[name]["joint"] = True
        if step.window:
            batch["window"] = {"position": step.position, "size": len(step.window)}
        return batch

    def _totals(self, step: Step, name: str) -> tuple[float, float]:
        """Rows and weight of a part in the optimizer step, divided by its accumulated batches.

        In a union they are those of both parts. The trainer divides accumulated losses by the
        number of batches, and so it does in a shorter last step too.
        """
        window = [
            (part, rows)
            for batch in step.window or (step,)
            for part, rows in batch.parts.items()
            if part == name or step.joint
        ]
        count = sum(len(rows.positions) for _, rows in window)
        total = sum(self._weight(part, rows) for part, rows in window)
        batches = max(len(step.window), 1)
        return count / batches, total / batches

    def _step(self, step: Step, name: str) -> StepRows:
        """The part's rows in the optimizer step; their substitutes' weight follows from it."""
        window = [batch.parts[name] for batch in step.window or (step,) if name in batch.parts]
        indices = np.asarray(self.parts[name].indices)  # type: ignore[attr-defined]
        return StepRows(
            np.concatenate([indices[rows.positions] for rows in window]),
            np.concatenate([rows.visits for rows in window]),
            max(len(step.window), 1),
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
        # all ranks take all steps; a rank without a row takes one that does not count
        if padded:
            positions = rows.positions[:1]
            visits = rows.visits[:1]
        part = fetch(self.parts[name], positions)
        part["visit"] = torch.as_tensor(visits, dtype=torch.int64)
        if padded:
            part["padded"] = torch.ones(1, dtype=torch.bool)
        return self.augment(part, self.seed) if self.augment else part


class PlanSampler(DistributedSampler, SequentialSampler):
    """Sampler over the steps of an epoch's plan.

    It is a DistributedSampler and a SequentialSampler by type, so that Lightning does not replace
    it, with `overfit_batches` neither.
    """

    def __init__(self, steps: Callable[[int], list[Step | None]]) -> None:
        self._steps = steps
        self._plan: list[Step | None] | None = None
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it before each."""
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
    """Loader that executes a data plan, epoch by epoch.

    Its state is the number of batches served, which Lightning puts into checkpoints; a resumed
    loader skips them.

    Args:
        parts: datasets by part name.
        plan: the order in which they are read.
        batch_size: *global* batch size of each part; ranks divide its rows.
        seed: decides the order.
        augment: applied to each part after it is fetched, keyed by (seed, index, visit);
            None leaves the data as they are.
        rank: this process.
        world: number of processes.
        shard: `rows` divides each batch among ranks; `batches` gives whole batches to ranks in
            turn, for statistics that are not linear in the batch (ranks that run out get a batch
            without parts).
        workers: number of loader processes.
        pin_memory: as in torch.
        accumulate: how many batches make a step of the optimizer, in each epoch or as a function
            of the epoch.
        limit: batches of an epoch that are used, a number or a share.
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
        accumulate: int | Callable[[int], int] = 1,
        limit: int | float = 1.0,
    ) -> None:
        sizes = {name: len(data) for name, data in parts.items()}  # type: ignore[arg-type]

        orders = _label_orders(parts) if reads_by_label(plan) else None

        def steps(epoch: int) -> list[Step | None]:
            batches = plan_steps(plan, epoch, sizes, batch_size, seed, orders)
            size = accumulate(epoch) if callable(accumulate) else accumulate
            end = limited(len(batches), limit)
            windows: list[Step | None] = [*accumulation_windows(batches, size, end)]
            if shard == "rows":
                return windows
            windows += [None] * (-len(windows) % world)
            return windows[rank::world]

        row_rank, row_world = (rank, world) if shard == "rows" else (0, 1)
        self.plan_sampler = PlanSampler(steps)
        self.served = 0
        self._skip = 0
        super().__init__(
            PlannedBatches(parts, augment, seed, row_rank, row_world),
            batch_size=None,
            sampler=self.plan_sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            collate_fn=to_tensors,
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        self.served = self._skip
        self.plan_sampler.start = self._skip
        self._skip = 0
        for batch in _readable(super().__iter__()):
            self.served += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches served in this epoch; nothing when the epoch is complete."""
        return {"served": self.served if self.served < len(self.plan_sampler) else 0}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Skip so many batches at the next start."""
        self._skip = int(state["served"])


def _readable(batches: Iterator[Any]) -> Iterator[Any]:
    """Batches; an InputError of a loader process keeps its sentence, without a traceback in it."""
    try:
        yield from batches
    except InputError as error:
        if not str(error).startswith("Caught InputError in DataLoader worker"):
            raise
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from None


def _label_orders(parts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Positions of each part's samples by label; samples of a label keep their order."""
    for name, data in parts.items():
        if not hasattr(data, "stored"):
            raise InputError(
                f"the plan reads the part {name!r} label by label, and its dataset does not give "
                "all labels at once, by a method stored()."
            )
    return {
        name: np.argsort(data.stored("label").numpy(), kind="stable")
        for name, data in parts.items()
    }


class EvalBatches(Dataset):
    """Dataset of a split's fixed batches, marked with the split's name."""

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


class _EvalSampler(DistributedSampler, SequentialSampler):
    """Contiguous batches, dealt to ranks in turn.

    A rank that would run out gets a row of the last batch again, marked as padded.
    """

    def __init__(self, size: int, batch_size: int, rank: int, world: int) -> None:
        batches = [
            np.arange(start, min(start + batch_size, size)) for start in range(0, size, batch_size)
        ]
        rounds = -(-len(batches) // world)
        self.batches = []
        for turn in range(rounds):
            position = turn * world + rank
            real = position < len(batches)
            positions = batches[position] if real else batches[-1][:1]
            self.batches.append(Rows(positions, np.full(len(positions), 0 if real else 1)))

    def set_epoch(self, epoch: int) -> None:
        """Nothing, because evaluation has one order."""

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Rows]:
        return iter(self.batches)


class EvalLoader(DataLoader):
    """Loader that goes once over a split, in order, without augmentation.

    Each sample is real on exactly one rank; rows that fill up another rank are marked `padded`.

    Args:
        dataset: of the split.
        name: the split's name.
        batch_size: of one rank.
        rank: this process.
        world: number of processes.
        workers: number of loader processes.
        pin_memory: as in torch.
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
            collate_fn=to_tensors,
        )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return _readable(super().__iter__())


class PassthroughLoader:
    """Wrapper of a loader that the trainer does not rebuild.

    In predict, the trainer rebuilds a DataLoader around another sampler.
    """

    def __init__(self, loader: EvalLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.loader)
