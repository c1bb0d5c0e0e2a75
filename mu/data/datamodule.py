"""UnlearningDataModule, the LightningDataModule that every task subclasses."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor
from torch.utils.data import Dataset

from mu.data.batch import Augment, ConcatByIndex, fetch, map_batch
from mu.data.loader import EvalLoader, PassthroughLoader, PlanLoader
from mu.data.plan import DataPlan
from mu.data.split import Split
from mu.utils.errors import InputError, MissingMethodError
from mu.utils.spec import Reconstructible, to_spec

MAX_WORKERS = max(64, 4 * (os.cpu_count() or 1))
"""Most loader processes."""


class UnlearningDataModule(LightningDataModule, Reconstructible):
    """Base of all tasks: datasets of the forget, retain, validation and test parts, and loaders.

    The method's plan decides the order in which a fit reads forget and retain.

    A task overrides `make()`, which sets `split`, `datasets` (one for each name in `split.parts`)
    and, where there is one, `augmentation`.

    Args:
        batch_size: global batch size in fit; divided by the ranks.
        forget_batch_size: global batch size of the forget part where it differs (SCRUB).
        eval_batch_size: batch size of one rank in validate, test and predict.
        workers: loader processes; 0 is fastest for data in memory.
        curves: splits that are evaluated during fit.
        evaluated: parts that a test evaluates; all when None.
    """

    provides: frozenset[str] = frozenset({"labels"})
    """Further entries that samples have: `labels`, `substitute`."""

    def __init__(
        self,
        batch_size: int = 256,
        forget_batch_size: int | None = None,
        eval_batch_size: int = 1000,
        workers: int = 0,
        curves: list[str] | None = None,
        evaluated: list[str] | None = None,
    ) -> None:
        super().__init__()
        for name, size in {
            "batch_size": batch_size,
            "forget_batch_size": forget_batch_size,
            "eval_batch_size": eval_batch_size,
        }.items():
            if size is not None and size < 1:
                raise InputError(f"{name} is {size}; it must be at least 1.")
        if not 0 <= workers <= MAX_WORKERS:
            raise InputError(
                f"workers is {workers}, and each is a process; give 0 to {MAX_WORKERS}."
            )
        self.batch_size = batch_size
        self.forget_batch_size = forget_batch_size
        self.eval_batch_size = eval_batch_size
        self.workers = workers
        self.curves = ["forget", "retain", "validation"] if curves is None else list(curves)
        self.evaluated = evaluated
        self.datasets: dict[str, Dataset] = {}
        self.augmentation: Augment | None = None
        self._split: Split | None = None

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes of the labels; empty where there are none."""
        return ()

    def make(self) -> None:
        """Read the data and set `split`, `datasets` and `augmentation`."""
        raise MissingMethodError(f"{type(self).__name__} does not override make().")

    def setup(self, stage: str | None = None) -> None:
        """Read the data once; Lightning calls it on every rank."""
        if self._split is None:
            self.make()
        self._check_names()
        missing = [
            name for name, ids in self.split.parts.items() if name not in self.datasets and len(ids)
        ]
        if missing:
            raise InputError(
                f"{type(self).__name__} has no dataset for the split part {missing[0]!r}."
            )

    def _check_names(self) -> None:
        """Check that the parts named for curves and evaluation exist."""
        parts = {*self.split.parts, "forget", "retain", "validation", "test"}
        for argument, names in {"curves": self.curves, "evaluated": self.evaluated}.items():
            unknown = [name for name in names or [] if name not in parts]
            if unknown:
                raise InputError(
                    f"{argument} names the part {unknown[0]!r}, which the split has not; it has "
                    f"{', '.join(sorted(self.split.parts))}."
                )

    @property
    def split(self) -> Split:
        """The indices of each part."""
        if self._split is None:
            self.setup()
        assert self._split is not None
        return self._split

    @split.setter
    def split(self, split: Split) -> None:
        self._split = split

    @property
    def original_split(self) -> Split:
        """The split whose training set the original is trained on.

        It differs from `split` only in protocols that reproduce a mismatch of seeds.
        """
        return self.split

    def recipe(self) -> dict[str, Any]:
        """Settings that decide how a model is trained, whatever is forgotten."""
        return {"batch_size": self.batch_size, "augmentation": to_spec(self.augmentation)}

    def parts(self, reads: frozenset[str]) -> dict[str, Dataset]:
        """Datasets of the parts that a plan reads; `train` is forget and retain together."""
        datasets = {name: self.datasets[name] for name in sorted(reads) if name in self.datasets}
        if "train" in reads and "train" not in datasets:
            datasets["train"] = ConcatByIndex([self.datasets["forget"], self.datasets["retain"]])
        return datasets

    def plan_loader(
        self,
        plan: DataPlan,
        seed: int,
        *,
        augment: bool = True,
        shard: str = "rows",
        batch_size: int | None = None,
        accumulate: int | Callable[[int], int] = 1,
        limit: int | float = 1.0,
    ) -> PlanLoader:
        """A loader that executes `plan` on this rank.

        Args:
            plan: which parts, in which order.
            seed: decides the order.
            augment: whether the task's augmentation is applied.
            shard: see `PlanLoader`.
            batch_size: global batch size of all parts; the task's sizes when None.
            accumulate: batches of an optimizer step, perhaps by epoch.
            limit: batches of an epoch that are used, a number or a share.
        """
        rank, world = self._rank_and_world()
        sizes = {part: batch_size or self.batch_size for part in ("retain", "train")}
        sizes["forget"] = batch_size or self.forget_batch_size or self.batch_size
        return PlanLoader(
            self.parts(plan.reads()),
            plan,
            sizes,
            seed,
            augment=self.augmentation if augment else None,
            rank=rank,
            world=world,
            shard=shard,
            workers=self.workers,
            pin_memory=self._pin_memory(),
            accumulate=accumulate,
            limit=limit,
        )

    def train_dataloader(self) -> PlanLoader:
        """The loader that executes the plan of the trainer's method."""
        module: Any = self._module("train_dataloader")
        accumulate = accumulation(module.trainer) if module.automatic_optimization else 1
        return self.plan_loader(
            module.plan,
            module.seed,
            augment=module.augment,
            shard=module.shard,
            accumulate=accumulate,
            limit=module.trainer.limit_train_batches,
        )

    def val_dataloader(self) -> list[EvalLoader]:
        """Loaders of the parts in `curves`."""
        return self.eval_loaders(
            [name for name in self.curves if len(self.split.parts.get(name, ()))]
        )

    def test_dataloader(self) -> list[EvalLoader]:
        """Loaders of all parts of the split, or of those in `evaluated`."""
        names = list(self.split.parts) if self.evaluated is None else self.evaluated
        unknown = [name for name in names if name not in self.split.parts]
        if unknown:
            raise InputError(
                f"the split has no part {unknown[0]!r} to evaluate; it has "
                f"{', '.join(self.split.parts)}."
            )
        return self.eval_loaders([name for name in names if len(self.split.parts[name])])

    def predict_dataloader(self) -> list[PassthroughLoader]:
        """Loaders of the same parts as in test."""
        return [PassthroughLoader(loader) for loader in self.test_dataloader()]

    def eval_loaders(self, names: list[str]) -> list[EvalLoader]:
        """Loaders that go once over each named part."""
        rank, world = self._rank_and_world()
        return [
            EvalLoader(
                self.evaluated_dataset(name),
                name,
                self.eval_batch_size,
                rank=rank,
                world=world,
                workers=self.workers,
                pin_memory=self._pin_memory(),
            )
            for name in names
        ]

    def evaluated_dataset(self, name: str) -> Dataset:
        """Dataset of a part as it is evaluated, perhaps by less than is learnt of a sample."""
        return self.datasets[name]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch to a device as Lightning does, prompts left alone.

        It stands in the DataModule, because Lightning warns of a module's hook beside one.
        """
        transfer = super().transfer_batch_to_device
        return map_batch(batch, lambda value: transfer(value, device, dataloader_idx))

    def _module(self, caller: str) -> Any:
        if self.trainer is None or not hasattr(self.trainer.lightning_module, "plan"):
            raise InputError(
                f"{caller} needs a trainer with an UnlearningModule, whose plan decides the order; "
                "use plan_loader(plan, seed) without one."
            )
        return self.trainer.lightning_module

    def _rank_and_world(self) -> tuple[int, int]:
        return (
            (self.trainer.global_rank, self.trainer.world_size)
            if self.trainer is not None
            else (0, 1)
        )

    def _pin_memory(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


def accumulation(trainer: Any) -> int | Callable[[int], int]:
    """Batches of an optimizer step: the trainer's number, or its scheduler's by epoch."""
    for callback in trainer.callbacks:
        if isinstance(callback, GradientAccumulationScheduler):
            return callback.get_accumulate_grad_batches
    return trainer.accumulate_grad_batches


def data_facts(task: UnlearningDataModule) -> dict[str, Any]:
    """Facts of a task's samples that belong to a model trained on them, as plain data.

    Returns:
        `input_size`, `[C, H, W]` of images, and `class_names`, each where the task has it.
    """
    facts: dict[str, Any] = {}
    datasets: list[Any] = list(task.datasets.values())
    dataset = next((data for data in datasets if len(data)), None)
    image = None if dataset is None else fetch(dataset, np.zeros(1, dtype=np.int64)).get("image")
    if isinstance(image, Tensor) and image.dim() == 4:
        facts["input_size"] = list(image.shape[1:])
    if task.class_names:
        facts["class_names"] = [str(name) for name in task.class_names]
    return facts


def check_provides(task: UnlearningDataModule, needs: Mapping[str, bool], method: str) -> None:
    """Refuse a method that needs parts or entries which the task does not provide.

    Args:
        task: the run's task.
        needs: whether the method needs `forget`, `retain`, `labels`.
        method: the method's name, for the message.

    Raises:
        InputError: names the method, the task and what is missing.
    """
    sizes = {name: len(ids) for name, ids in task.split.parts.items()}
    provided = {name for name in ("forget", "retain") if sizes.get(name)} | set(task.provides)
    for need, required in needs.items():
        if required and need not in provided:
            raise InputError(
                f"{method} needs {need}, which {type(task).__name__} does not give; choose "
                "another task or another method."
            )
