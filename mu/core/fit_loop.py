"""Workarounds for Lightning's fit loop when epochs differ in length or a run stops anywhere."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from mu.core.protocols import Method
from mu.data.datamodule import accumulation
from mu.data.plan import DataPlan, count_windows, limited


def completed_epochs(trainer: Trainer) -> int:
    """Epochs without a batch left; one more than `current_epoch` when an epoch ends."""
    loop: Any = trainer.fit_loop
    return loop.epoch_progress.current.processed


def sync_epoch_length(module: Method) -> None:
    """Set the fit loop's length to that of the epoch that begins.

    Lightning measures the loader once; where epochs differ (SCRUB), it would miss validations and
    schedulers, or cut an epoch short.
    """
    trainer = module.trainer
    sampler = getattr(trainer.train_dataloader, "plan_sampler", None)
    if sampler is None:
        return
    loop: Any = trainer.fit_loop
    sampler.set_epoch(completed_epochs(trainer))
    length = limited(len(sampler), trainer.limit_train_batches)
    if length != loop.max_batches:
        loop.max_batches = length
        loop._combined_loader.limits = length
        loop._data_fetcher.length = length
        if isinstance(trainer.val_check_interval, float):
            trainer.val_check_batch = max(1, int(length * trainer.val_check_interval))


def planned_steps(module: Method) -> int:
    """Optimizer steps of the whole run, by the plan; 0 if the run has no end.

    Each accumulation window makes a step. Lightning's estimate multiplies the length
    of the first epoch, though epochs may differ; and reading it before a checkpoint is restored
    makes a resumed run begin its epoch again.
    """
    trainer = module.trainer
    task = module.task
    if task is None:
        estimate = trainer.estimated_stepping_batches
        return int(estimate) if estimate != float("inf") else 0
    epochs = trainer.max_epochs
    most = trainer.max_steps
    if epochs is None or epochs < 0:
        return max(most, 0)
    accumulate = accumulation(trainer)
    sampler = task.plan_loader(
        module.plan,
        module.seed,
        shard=module.shard,
        accumulate=accumulate,
        limit=trainer.limit_train_batches,
    ).plan_sampler
    lengths: dict[tuple[tuple[DataPlan, ...], int], int] = {}
    steps = 0
    for epoch in range(epochs):
        size = accumulate(epoch) if callable(accumulate) else accumulate
        length = (module.plan.phases(epoch), size)
        if length not in lengths:
            sampler.set_epoch(epoch)
            batches = sampler.steps[: limited(len(sampler), trainer.limit_train_batches)]
            lengths[length] = count_windows(batches)
        steps += lengths[length]
    return steps if most < 0 else min(steps, most)


def epoch_end_pending(trainer: Trainer) -> bool:
    """Whether an epoch's last batch is done, and neither validation nor the epoch's end has begun.

    From a checkpoint that is written then, Lightning goes on with the next epoch and never ends
    this one.
    """
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress
    return bool(batches.is_last_batch and batches.total.completed < batches.total.processed)


def finish_due_epoch(module: Method) -> None:
    """End the epoch whose end was due, and begin the next one.

    Lightning calls neither hook then, and takes the old epoch for finished only if its length is at
    most the number of its batches done; so the loop gets that length now, and the new epoch's with
    its first batch.
    """
    loop: Any = module.trainer.fit_loop
    module.on_train_epoch_end()
    if not loop.done:
        module.on_train_epoch_start()
        loop.max_batches = min(loop.max_batches, loop.epoch_loop.batch_progress.current.ready)
