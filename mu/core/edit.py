"""Edit, the base of closed-form methods: one pass gathers statistics, one step assigns weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mu.backbones import Backbone
from mu.core.masks import WeightMask
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import limited
from mu.utils.errors import InputError, MissingMethodError


class Assign(torch.optim.Optimizer):
    """Optimizer whose step copies tensors into the weights, exact in every dtype, never clipped.

    `p.grad = p - edited` with SGD is off by 6e-4 in float32 and useless in bfloat16.

    Example:
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> optimizer = Assign([weight])
        >>> optimizer.edited = [torch.tensor([0.1, 0.2])]
        >>> optimizer.step()
        >>> weight.data
        tensor([0.1000, 0.2000])
    """

    def __init__(self, params: Iterable[nn.Parameter]) -> None:
        super().__init__(params, {})
        self.edited: list[Tensor] | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Copy `edited` into the weights, in the order of the parameters."""
        assert self.edited is not None, "set `edited` before the step"
        parameters = [p for group in self.param_groups for p in group["params"]]
        for parameter, value in zip(parameters, self.edited, strict=True):
            parameter.copy_(value)
        self.edited = None


class Edit(UnlearningModule):
    """Base of closed-form methods.

    A subclass overrides `observe`, which adds a batch of the plan to its statistics, and `edited`,
    which returns the new weights. The backbone stays in eval mode and nothing is augmented. The
    whole edit is one optimizer step, so that checkpoints, logging, masks and ranks work as for
    every other method; an Edit killed in its pass starts again.

    Statistics that are linear in the batch may divide it among ranks (`shard = "rows"`); others
    take whole batches (`"batches"`), so that groups do not depend on the number of ranks. A rank
    that has run out sees a batch with neither part.

    Args:
        backbone: the model to edit.
        mask: which weights may be edited; None edits all.
        seed: decides the plan and every draw.
    """

    default_epochs = 1
    ends_itself = True
    augment = False
    shard = "batches"

    def __init__(self, backbone: Backbone, mask: WeightMask | None = None, seed: int = 0) -> None:
        super().__init__(backbone, mask=mask, seed=seed)
        self.automatic_optimization = False

    def observe(self, forget: Batch | None, retain: Batch | None) -> None:
        """Add one batch to the statistics; gradients are enabled.

        Args:
            forget: the forget part, prepared; None where the batch has none.
            retain: the retain part, likewise.
        """
        raise MissingMethodError(
            f"{type(self).__name__} does not override observe, which adds up its statistics."
        )

    def edited(self) -> Mapping[str, Tensor]:
        """New values by parameter name, computed after the last batch, equal on every rank.

        Weights that are not named stay as they are.
        """
        raise MissingMethodError(
            f"{type(self).__name__} does not override edited, which returns the new weights."
        )

    def configure_optimizers(self) -> Any:
        """The optimizer that assigns the edited weights."""
        optimizer = Assign([p for _, p in self.trainable()])
        if self.mask is not None:
            self.mask.attach(optimizer)
        return optimizer

    def setup(self, stage: str) -> None:
        """Refuse a trainer that would stop the pass early: an edit needs all of its batches."""
        super().setup(stage)
        trainer: Any = self.trainer
        if stage != "fit" or self.task is None or trainer.fast_dev_run:
            return
        loader = self.task.plan_loader(self.plan, self.seed, shard=self.shard)
        batches = len(loader.plan_sampler)
        limit = trainer.limit_train_batches
        if limited(batches, limit) < batches:
            raise InputError(
                f"{type(self).__name__} edits once, from all {batches} batches of its pass, and "
                f"the trainer's limit_train_batches is {limit}; leave it out (or overfit_batches), "
                "and select less data for a shorter pass."
            )

    def set_mode(self) -> None:
        """Eval mode, in which statistics are gathered."""
        self.backbone.eval()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:  # type: ignore[override]
        """Observe; after the last batch of the first epoch, assign."""
        # edited already: by this fit, or by the finished one that it resumes
        if self.trainer.global_step > 0:
            self.trainer.should_stop = True
            return
        if "forget" in batch or "retain" in batch:
            self.observe(*self.prepare_parts(batch))
        if batch_idx + 1 == self.trainer.num_training_batches:
            with self.stopwatch("edit"):
                self._assign()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restart an edit that was stopped in its pass: checkpoints hold no statistics."""
        super().on_load_checkpoint(checkpoint)
        if not checkpoint.get("global_step"):
            checkpoint.pop("loops", None)

    def _assign(self) -> None:
        optimizer: Any = self.optimizers()
        with torch.no_grad():
            values = self.edited()
        total = torch.stack([value.detach().float().abs().sum() for value in values.values()]).sum()
        self.checks.check_loss(self, total)
        self.checks.check_pending(self)
        optimizer.optimizer.edited = [values.get(name, p.detach()) for name, p in self.trainable()]
        optimizer.step()
        self.trainer.should_stop = True  # one pass is the whole method, whatever max_epochs says
