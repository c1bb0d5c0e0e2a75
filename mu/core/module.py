"""UnlearningModule, the LightningModule that every unlearning method subclasses."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from mu.backbones import Backbone, WeightedSum
from mu.core.accumulation import AccumulationWindows
from mu.core.base_weights import BaseWeights
from mu.core.batch_norm import Norm, broadcast_buffers, recalibrate, set_mode
from mu.core.checkpoint_hooks import CheckpointHooks
from mu.core.checks import FitChecks
from mu.core.epoch_means import EpochMeans
from mu.core.eval_steps import EvaluationSteps
from mu.core.fit_loop import completed_epochs, finish_due_epoch, planned_steps, sync_epoch_length
from mu.core.lr import LRSchedule
from mu.core.masks import WeightMask
from mu.core.needs import check_backbone, check_needs
from mu.core.objective import evaluate_objective
from mu.core.reduction import Reduction, reduce, sample_weighted
from mu.core.reference import frozen_copy
from mu.core.sharding import shard_models, trained_parameters
from mu.core.substitutes import Substitute
from mu.core.trainer_checks import check_monitored, check_trainer
from mu.data.batch import Batch
from mu.data.plan import DataPlan
from mu.utils.errors import InputError, MissingMethodError
from mu.utils.master_weights import with_masters
from mu.utils.rng import seed_generators, stream_id
from mu.utils.spec import Reconstructible
from mu.utils.weights import weights_hash


class UnlearningModule(CheckpointHooks, EvaluationSteps, Reconstructible):
    """Base of all methods: a backbone, an optimizer, perhaps a mask and a frozen reference.

    Most methods override `objective`; the rest override Lightning's own hooks. A method declares
    its `plan` and its needs.

    Args:
        backbone: the model to unlearn from, with its original weights.
        optimizer: makes the optimizer from the trainable weights.
        scheduler: a learning-rate schedule of `mu.core.lr`, which knows the run's length, or any
            torch scheduler (stepped once an epoch); None keeps the rate constant.
        mask: which weights may move; None lets all move.
        norm: batch-norm statistics in fit: `train` updates them from every batch, `eval` freezes
            them, `recalibrate` updates them and finally recomputes them from the retain part.
        reduction: how token-weighted losses become a scalar (see `reduce`).
        seed: decides the plan and every draw of this run (the unlearning seed).
        master_weights: whether the optimizer moves float32 copies of weights in half precision
            (see `mu.utils.master_weights`); without them, small steps are rounded away.
    """

    plan: DataPlan
    """The order of forget and retain batches, which every method declares."""
    default_epochs: int = 10
    """Epochs of a fit whose trainer has neither `max_epochs` nor `max_steps`."""
    default_steps: int | None = None
    """Optimizer steps of such a fit, in place of epochs."""
    ends_itself: bool = False
    augment: bool = True
    """Whether the plan's batches are augmented."""
    shard: str = "rows"
    needs_forget: bool = True
    needs_retain: bool = True
    needs_labels: bool = True
    needs_reference: bool = False
    needs_substitute: bool = False
    trains_from_scratch: bool = False
    """Whether this run's recipe is that of its weights (Train, Retrain), not the original's."""

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.01, momentum=0.9
        ),
        scheduler: LRSchedule | LRSchedulerCallable | None = None,
        mask: WeightMask | None = None,
        norm: Norm = "train",
        reduction: Reduction = "token_mean",
        seed: int = 0,
        master_weights: bool = True,
    ) -> None:
        super().__init__()
        check_backbone(type(self), backbone)
        self.backbone = backbone
        self.make_optimizer = optimizer
        self.scheduler = scheduler
        self.mask = mask
        self.norm: Norm = norm
        self.reduction: Reduction = reduction
        self.seed = seed
        self.master_weights = master_weights
        self.substitute: Substitute | None = None
        self.reference: Backbone | None = None
        self.original_hash = ""
        self.base: BaseWeights | None = None
        self.stored_base: str | None = None
        self._recipe: str | None = None
        self.serves_only = False
        self.checks = FitChecks()
        self.epoch_means = EpochMeans()
        self.windows = AccumulationWindows()
        self._first_step: int | None = None
        self._epoch_end_pending = False
        self._recalibrated = False
        self.phase = 0

    # ---- the loss --------------------------------------------------------------------------------

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        """Named scalar terms whose sum is minimised.

        Args:
            forget: the forget part of the batch, prepared; None where the plan's batch has none.
            retain: the retain part, likewise.
        """
        raise MissingMethodError(f"{type(self).__name__} lacks objective, or else training_step.")

    def served(self) -> Backbone:
        """The unlearned model, as suites, attacks and export use it."""
        return self.backbone

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Names (within the backbone) and parameters of the weights that the method moves."""
        return trained_parameters(self.backbone, self.device_mesh)

    def reduce(self, summed: WeightedSum, part: Batch) -> Tensor:
        """A scalar from per-example `(sum [B], weight [B])` by `mu.core.reduction.reduce`."""
        return reduce(summed, part, self.reduction, self.world_size)

    def mean(self, values: Tensor, part: Batch) -> Tensor:
        """Mean over samples of values `[B]` without padded rows, for every `reduction`."""
        return self.reduce(Backbone.count(part, values), sample_weighted(part))

    # ---- Lightning: building ---------------------------------------------------------------------

    def configure_model(self) -> None:
        """Hash the original weights, make the reference and the mask."""
        if self.original_hash:
            return  # Lightning calls again
        self.original_hash = weights_hash(self.backbone)
        mesh = self.device_mesh
        if self.needs_reference and not self.serves_only:
            self.reference = frozen_copy(self.backbone, share=mesh is None)
        trained = [weight for _, weight in self.trainable()]
        self.base = BaseWeights(self, trained, watch=mesh is None)
        if mesh is not None:
            shard_models(self, mesh)
        if self.mask is not None:
            self.mask.allocate(self.trainable())

    def setup(self, stage: str) -> None:
        """Check the method's needs against the task, and set up its substitutes."""
        if self.task is not None:
            self.backbone.check_task(self.task)
        if stage == "fit":
            check_trainer(self, self.mask is not None)
            needs = {
                "forget": self.needs_forget,
                "retain": self.needs_retain,
                "labels": self.needs_labels,
                "substitute": self.needs_substitute,
            }
            check_needs(self, needs, self.substitute)
            if self.needs_substitute and self.substitute is not None:
                with self.stopwatch("cache") if self.substitute.generates else nullcontext():
                    self.substitute.setup(self.backbone, self.task)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups; one group of all trainable weights by default."""
        return [{"params": [weight for _, weight in self.trainable()]}]

    def build_optimizer(self, make: OptimizerCallable, groups: Iterable[Any]) -> Optimizer:
        """Optimizer of a factory, with master weights where the method has them."""
        return with_masters(make, groups) if self.master_weights else make(groups)

    def configure_optimizers(self) -> Any:
        """One optimizer over `parameter_groups()`; the mask's restore is hooked to it."""
        optimizer = self.build_optimizer(self.make_optimizer, self.parameter_groups())
        if self.mask is not None:
            self.mask.attach(optimizer)
        if self.scheduler is None:
            return optimizer
        if not isinstance(self.scheduler, LRSchedule):
            return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}
        bound = self.scheduler.bind(optimizer, planned_steps(self))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": bound, "interval": "step"}}

    # ---- Lightning: fit --------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Compute the mask, unless a checkpoint that brings it is loaded later."""
        self._first_step = None
        self._recalibrated = False
        self.facts["fit_threads"] = torch.get_num_threads()
        if not self.trainer.strategy.restore_checkpoint_after_setup:
            self._start_fit()
        self.stopwatch.start("training")

    def _start_fit(self) -> None:
        self.checks.start(self)
        if self.mask is not None:
            with self.stopwatch("mask"):
                self.mask.start(self)

    def on_train_start(self) -> None:
        """As `on_train_epoch_start`, which a fit that resumes inside an epoch does not get."""
        # strategies of sharded weights load a checkpoint only now
        if self.trainer.strategy.restore_checkpoint_after_setup:
            self._start_fit()
        # steps made before a resume do not count as this fit's
        self._first_step = self.trainer.global_step
        self.set_mode()
        sync_epoch_length(self)
        if self._epoch_end_pending:
            self._epoch_end_pending = False
            finish_due_epoch(self)

    def on_train_epoch_start(self) -> None:
        """Set train mode, because Lightning keeps the mode of `from_pretrained`, which is eval."""
        self.set_mode()
        sync_epoch_length(self)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed torch's generators (dropout) by (seed, epoch, batch, rank), for exact resumes."""
        self.cache.clear()  # its content was computed with the weights before this step
        self.checks.batch = batch
        self.epoch_means.start_batch()
        self.windows.begin_batch(self.trainer, batch)
        seed = stream_id("step", self.seed, self.current_epoch, batch_idx, self.global_rank)
        seed_generators(seed, self.device)
        if batch_idx == 0:
            sync_epoch_length(self)

    def prepare_parts(self, batch: Mapping[str, Any]) -> tuple[Batch | None, Batch | None]:
        """The forget and the retain part, prepared; the forget part with substitutes."""
        self.phase = int(batch.get("phase", 0))
        forget = self.prepare(batch["forget"], substitute=True) if "forget" in batch else None
        return forget, self.prepare(batch["retain"]) if "retain" in batch else None

    @torch.no_grad()
    def prepare(self, part: Batch, substitute: bool = False) -> Batch:
        """A part of a batch after the backbone's `prepare` (draws, encodes, tokenises).

        Args:
            part: as the task's loader gives it.
            substitute: whether to add a substitute target for each sample, where the method needs
                them.
        """
        part = self.backbone.prepare(part, self.seed)
        if substitute and self.needs_substitute and self.substitute is not None:
            part["substitute"] = self.substitute.draw(part, self.seed)
            total = self.substitute.total(part, self.seed)
            if total is not None:
                part["substitute_total"] = total
        return part

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The sum of the objective's terms."""
        terms = evaluate_objective(self, *self.prepare_parts(batch))
        loss = functools.reduce(operator.add, terms.values())
        self.checks.check_loss(self, loss)
        self.log_terms(terms)
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Backward pass of a scalar loss.

        Raises:
            InputError: the loss is a vector.
        """
        if loss.dim():
            raise InputError(
                f"{type(self).__name__}.training_step returned a tensor of shape "
                f"{list(loss.shape)}; it returns a scalar, as self.reduce gives one."
            )
        super().backward(loss, *args, **kwargs)

    def log_terms(self, terms: Mapping[str, Tensor]) -> None:
        """Log the loss terms on the steps that the trainer logs, and add to the epoch's means.

        A log call in each step costs more than a small model.
        """
        self.epoch_means.add(terms)
        interval: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if interval and (self.trainer.global_step + 1) % interval == 0:
            self.log_dict(
                {f"train/{name}": value.detach() for name, value in terms.items()},
                prog_bar=len(terms) == 1,
            )

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Mask the gradients (before they are clipped, unless the mask says otherwise)."""
        self.checks.note_rates(optimizer)
        if self.mask is not None and self.mask.clip == "mask_then_clip":
            self.mask.mask_gradients()

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip by the trainer's settings, then mask where the mask's `clip` is clip_then_mask."""
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if self.mask is not None and self.mask.clip == "clip_then_mask":
            self.mask.mask_gradients()

    def on_train_epoch_end(self) -> None:
        """Check the last loss and recompute batch-norm statistics, before checkpoints are saved."""
        self.checks.check_pending(self)
        self._log_epoch_means()
        self.share_buffers()
        if self.norm == "recalibrate" and self.is_last_epoch():
            with self.stopwatch("recalibrate"):
                recalibrate(self)
            self._recalibrated = True

    def _log_epoch_means(self) -> None:
        """Log `train/loss` and `train/TERM` for callbacks that monitor them, and begin anew."""
        means = self.epoch_means.values()
        self.epoch_means.clear()
        self.log_dict(means, on_epoch=True, logger=False, sync_dist=self.world_size > 1)
        if means:
            check_monitored(self.trainer.callbacks, self.trainer.callback_metrics)  # pyright: ignore[reportAttributeAccessIssue]

    def is_last_epoch(self) -> bool:
        """Whether the epoch that ends is the run's last one, by `max_epochs` or any other stop."""
        epochs = self.trainer.max_epochs
        if epochs is not None and 0 <= epochs <= completed_epochs(self.trainer):
            return True
        # last, because at the end of the last epoch it moves Lightning's count of epochs on
        return self.trainer.fit_loop.done

    @property
    def steps_made(self) -> int | None:
        """Optimizer steps of this fit since its start or resume; None before its first batch."""
        return None if self._first_step is None else self.trainer.global_step - self._first_step

    def on_fit_end(self) -> None:
        """Check that the fit had batches and moved weights."""
        self.stopwatch.stop("training")
        self.windows.detach()
        outdated_norm = self.norm == "recalibrate" and not self._recalibrated
        movable = 1.0 if self.mask is None else self.mask.share()
        self.checks.check_end(self, self.steps_made, outdated_norm, movable)

    def set_mode(self) -> None:
        """Train mode for the backbone, with frozen batch norm where `norm` is eval."""
        set_mode(self.backbone, self.norm)

    def share_buffers(self) -> None:
        """Broadcast rank 0's buffers (batch-norm statistics) to all ranks."""
        if self.world_size > 1:
            broadcast_buffers(self.named_buffers())

    def on_validation_start(self) -> None:
        """Share buffers, so that all ranks validate the same model."""
        self.share_buffers()

    # ---- passes over data ------------------------------------------------------------------------

    def iterate_batches(
        self, plan: DataPlan, *, augment: bool, batch_size: int | None = None, shard: str = "rows"
    ) -> Iterator[dict[str, Any]]:
        """Prepared batches of one epoch of `plan` on this rank, outside the training loop.

        Args:
            plan: which parts, in which order.
            augment: whether the task's augmentation is applied.
            batch_size: samples of a batch over all ranks; the task's when None.
            shard: `rows` deals each batch's rows to ranks, `batches` deals whole batches.

        Yields:
            `{"phase": int, "forget": part, "retain": part}`; a part that the batch lacks is absent.
        """
        if self.task is None:
            raise InputError(
                f"{type(self).__name__} gathers statistics over the task's parts, so fit it with "
                "a mu task (datamodule=...)."
            )
        loader = self.task.plan_loader(
            plan, self.seed, augment=augment, batch_size=batch_size, shard=shard
        )
        for batch in loader:
            # as Lightning does before its own steps
            batch = self.trainer.precision_plugin.convert_input(batch)
            batch = self.trainer.strategy.batch_to_device(batch)
            forget, retain = self.prepare_parts(batch)
            parts = {"phase": self.phase, "forget": forget, "retain": retain}
            yield {name: part for name, part in parts.items() if part is not None}
