"""UnlearningModule: a backbone, an optimizer, perhaps a mask and a frozen reference. One subclass
for each paper.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args, get_type_hints

import torch
import torch.distributed
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from mu.backbones import Backbone, WeightedSum
from mu.core.batch_norm import Norm, broadcast_buffers, recalibrate, set_mode
from mu.core.checks import FitChecks
from mu.core.eval_steps import EvaluationSteps
from mu.core.fit_loop import (
    completed_epochs,
    epoch_end_pending,
    finish_due_epoch,
    planned_steps,
    sync_epoch_length,
)
from mu.core.lr import LRSchedule
from mu.core.masks import WeightMask
from mu.core.reference import frozen_copy
from mu.core.substitutes import Substitute
from mu.data.batch import Batch
from mu.data.datamodule import UnlearningDataModule, check_provides
from mu.data.plan import DataPlan, Retain
from mu.utils.errors import InputError, RunError
from mu.utils.fingerprint import digest
from mu.utils.rng import stream_id
from mu.utils.spec import Reconstructible, to_spec
from mu.utils.version import __version__
from mu.utils.weights import weights_hash


class UnlearningModule(EvaluationSteps, Reconstructible):
    """Base of all methods.

    Most methods override `objective`; the rest override Lightning's own hooks. A method declares
    its `plan` and its needs.

    Args:
        backbone: the model to unlearn from, with its original weights.
        optimizer: makes the optimizer from the trainable weights.
        scheduler: a schedule of `mu.core.lr`, which knows the run's length, or any torch scheduler
            (stepped once an epoch); None is constant.
        mask: which weights may move; None lets all move.
        norm: batch-norm statistics in fit: `train` moves them on whatever is shown, `eval` freezes
            them, `recalibrate` moves them and finally takes them anew from the retain part.
        reduction: how token-weighted losses become a scalar (see `reduce`).
        seed: decides the plan and every draw of this run (the unlearning seed).
    """

    plan: DataPlan = Retain()
    augment: bool = True
    """Whether the plan's batches are augmented."""
    shard: str = "rows"
    needs_forget: bool = True
    needs_retain: bool = True
    needs_labels: bool = True
    needs_reference: bool = False
    needs_substitute: bool = False
    trains_from_scratch: bool = False
    """Train and Retrain: their own recipe is what others refer to."""

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.01, momentum=0.9
        ),
        scheduler: LRSchedule | LRSchedulerCallable | None = None,
        mask: WeightMask | None = None,
        norm: Norm = "train",
        reduction: Literal["token_mean", "sequence_mean", "sequence_sum", "micro"] = "token_mean",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, Backbone):
            raise InputError(
                f"{type(self).__name__} wraps a mu Backbone, not {type(backbone).__name__}; wrap "
                "a network as Classifier(network=...)."
            )
        if not isinstance(backbone, self.admitted()):
            kinds = " or a ".join(kind.__name__ for kind in self.admitted())
            raise InputError(
                f"{type(self).__name__} is defined for a {kinds}, not for a "
                f"{type(backbone).__name__}."
            )
        self.backbone = backbone
        self.make_optimizer = optimizer
        self.scheduler = scheduler
        self.mask = mask
        self.norm: Norm = norm
        self.reduction = reduction
        self.seed = seed
        self.substitute: Substitute | None = None
        self.reference: Backbone | None = None
        self.original_hash = ""
        self._recipe: str | None = None
        self.serves_only = False
        self.checks = FitChecks()
        self._first_step: int | None = None
        self._epoch_end_pending = self._recalibrated = False
        self.phase = 0

    @classmethod
    def admitted(cls) -> tuple[type[Backbone], ...]:
        """The kinds of backbones that the method is defined for, as its constructor's annotation
        says.
        """
        for base in cls.__mro__:
            if "backbone" in getattr(base.__dict__.get("__init__"), "__annotations__", {}):
                annotation = get_type_hints(base.__init__)["backbone"]
                return get_args(annotation) or (annotation,)
        return (Backbone,)

    # ---- what a method says ----------------------------------------------------------------------

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        """Named scalar terms whose sum is minimised. A part that this step does not show is
        None.
        """
        raise TypeError(f"{type(self).__name__} overrides neither objective() nor training_step().")

    def served(self) -> Backbone:
        """What suites, attacks and export touch: the unlearned model."""
        return self.backbone

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Names (within the backbone) and weights that the method moves."""
        return [(name, p) for name, p in self.backbone.named_parameters() if p.requires_grad]

    def reduce(self, summed: WeightedSum, part: Batch) -> Tensor:
        """A scalar from `(sum [B], weight [B])`.

        `token_mean`: Σ sum / Σ weight; `sequence_mean`: mean over samples of sum / weight;
        `sequence_sum`: mean over samples of sum. The normaliser is that of the whole optimizer step
        over ranks and accumulation, which the plan knows beforehand, so that N accumulated batches
        give the step of one that is N times as large (of each part, over the batches that show it;
        an epoch's last step has what is left). `micro` (token mean over this rank's micro-batch)
        reproduces references that do that. For weight 1, all are the mean over samples.
        """
        values, weight = summed
        if self.reduction == "micro" or "total" not in part:
            return values.sum() / weight.sum().clamp_min(1e-12)
        if self.reduction == "token_mean":
            return values.sum() / (part["total"] / self.world_size)
        if self.reduction == "sequence_mean":
            values = values / weight.clamp_min(1e-12)
        return values.sum() / (part["count"] / self.world_size)

    @staticmethod
    def substituted(part: Batch) -> Batch:
        """The part as `reduce` is to see it for a loss of its substitutes, which may weigh
        otherwise than the truth (other tokens).
        """
        return {**part, "total": part["substitute_total"]} if "substitute_total" in part else part

    def mean(self, values: Tensor, part: Batch) -> Tensor:
        """Mean over samples of per-example values `[B]`, padded rows left out, whatever the
        reduction and however many tokens they have.
        """
        return self.reduce(
            Backbone.count(part, values),
            {**part, "total": part["count"]} if "count" in part else part,
        )

    # ---- Lightning: building ---------------------------------------------------------------------

    def configure_model(self) -> None:
        """Reference, mask and hash of the original weights; called again by Lightning, so it does
        each thing once.
        """
        if self.original_hash:
            return
        self.original_hash = weights_hash(self.backbone)
        mesh = self.device_mesh
        if self.needs_reference and not self.serves_only:
            self.reference = frozen_copy(self.backbone, share=mesh is None)
        if self.mask is not None:
            if mesh is not None:
                raise InputError(
                    "a mask over sharded weights is not defined; take the strategy ddp, or no mask."
                )
            self.mask.allocate(self.trainable())
        # ModelParallelStrategy: every rank holds a part of each weight (FSDP2)
        if mesh is not None:
            for model in (self.backbone, self.reference):
                if model is not None:
                    model.shard(mesh["data_parallel"])

    def setup(self, stage: str) -> None:
        """Check the method's needs against the task before anything is computed."""
        task = self.task
        if task is not None:
            self.backbone.check_task(task)
        if stage == "fit":
            if task is not None:
                needs = {
                    "forget": self.needs_forget,
                    "retain": self.needs_retain,
                    "labels": self.needs_labels,
                }
                check_provides(task, needs, type(self).__name__)
            if self.needs_substitute:
                if self.substitute is None:
                    raise InputError(
                        f"{type(self).__name__} needs a law of substitutes; give one as "
                        "substitute=UniformLabel()."
                    )
                with self.stopwatch("cache") if self.substitute.makes else nullcontext():
                    self.substitute.setup(self.backbone, task)
            if not self.trainable():
                raise InputError(f"{type(self).__name__} has no trainable weight; unfreeze some.")

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameter groups: one of all trainable weights, unless a subclass has
        more.
        """
        return [{"params": [weight for _, weight in self.trainable()]}]

    def configure_optimizers(self) -> Any:
        """One optimizer over `parameter_groups()`; the mask's restore is hooked to it."""
        optimizer = self.make_optimizer(self.parameter_groups())
        if self.mask is not None:
            self.mask.attach(optimizer)
        if self.scheduler is None:
            return optimizer
        if isinstance(self.scheduler, LRSchedule):
            bound = self.scheduler.bind(optimizer, planned_steps(self))
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": bound, "interval": "step"},
            }
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}

    # ---- Lightning: fit --------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """The mask is computed here, after a checkpoint was loaded and before the first step."""
        self._first_step = None
        self._recalibrated = False
        self.checks.start(self)
        if self.mask is not None:
            with self.stopwatch("mask"):
                self.mask.start(self)
        self.stopwatch.start("training")

    def on_train_start(self) -> None:
        """Steps made before a resume do not count as this fit's; a fit that resumes inside an epoch
        gets no `on_train_epoch_start`.
        """
        self._first_step = self.trainer.global_step
        self.set_mode()
        sync_epoch_length(self)
        if self._epoch_end_pending:
            self._epoch_end_pending = False
            finish_due_epoch(self)

    def on_train_epoch_start(self) -> None:
        """Lightning keeps the mode that it finds, and `from_pretrained` returns eval; so the mode
        is set here.
        """
        self.set_mode()
        sync_epoch_length(self)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout, and whatever else draws from torch's own generator, by (seed, epoch, batch,
        rank): the same after a resume.
        """
        self.cache.clear()  # it holds what the weights before this step gave
        seed = stream_id("step", self.seed, self.current_epoch, batch_idx, self.global_rank)
        # torch.manual_seed asks every kind of device that there could be, which takes 1 ms
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            getattr(torch, self.device.type).manual_seed(seed)
        if batch_idx == 0:
            sync_epoch_length(self)

    def prepare_parts(self, batch: Mapping[str, Any]) -> tuple[Batch | None, Batch | None]:
        """The batch's parts, prepared: drawn, encoded, the forget part with substitutes."""
        self.phase = int(batch.get("phase", 0))
        forget = self.prepare(batch["forget"], substitute=True) if "forget" in batch else None
        return forget, self.prepare(batch["retain"]) if "retain" in batch else None

    @torch.no_grad()
    def prepare(self, part: Batch, substitute: bool = False) -> Batch:
        """One part through the backbone's `prepare`, on demand with a substitute for each sample
        where the method needs them.
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
        terms = self.objective(*self.prepare_parts(batch))
        loss = functools.reduce(operator.add, terms.values())
        self.checks.check_loss(self, loss)
        self.log_terms(terms)
        return loss

    def log_terms(self, terms: Mapping[str, Tensor]) -> None:
        """Log the terms, only on the steps that the trainer logs (a log call in each step costs
        more than a small model).
        """
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # pyright: ignore[reportAttributeAccessIssue]
            self.log_dict(
                {f"train/{name}": value.detach() for name, value in terms.items()},
                prog_bar=len(terms) == 1,
            )

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Mask the gradients (before they are clipped, unless the mask says otherwise)."""
        if self.mask is not None and self.mask.clip == "mask_then_clip":
            self.mask.mask_gradients()

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip as the trainer says, then mask where the mask says so."""
        self.clip_gradients(
            optimizer,
            gradient_clip_val=gradient_clip_val,
            gradient_clip_algorithm=gradient_clip_algorithm,
        )
        if self.mask is not None and self.mask.clip == "clip_then_mask":
            self.mask.mask_gradients()

    def on_train_epoch_end(self) -> None:
        """Before the checkpoint callbacks: nothing that is not finite is saved, and statistics are
        taken anew where asked for.
        """
        self.checks.check_pending(self)
        self.share_buffers()
        if self.norm == "recalibrate" and self.is_last_epoch():
            with self.stopwatch("recalibrate"):
                recalibrate(self)
            self._recalibrated = True

    def is_last_epoch(self) -> bool:
        """Whether the epoch that ends is the run's last one, by `max_epochs` or any other stop."""
        epochs = self.trainer.max_epochs
        # `done` is asked last, because at the end of the last epoch it moves Lightning's count of
        # epochs on
        return (
            epochs is not None and 0 <= epochs <= completed_epochs(self.trainer)
        ) or self.trainer.fit_loop.done

    @property
    def steps_made(self) -> int | None:
        """Optimizer steps of this fit, those before a resume left out; None before its first
        batch.
        """
        if self._first_step is None:
            return None
        return self.trainer.global_step - self._first_step

    def on_fit_end(self) -> None:
        """A fit that moved no weight is an error."""
        self.stopwatch.stop("training")
        steps = self.steps_made
        # a finished run was resumed and there was nothing left to do, or there is nothing to show
        # at all
        if steps is None:
            if self.trainer.fit_loop.max_batches == 0 and self.trainer.limit_train_batches:
                raise RunError(
                    f"the plan of {type(self).__name__} shows no batch in epoch "
                    f"{self.current_epoch}, so nothing moved."
                )
            return
        if (
            steps > 0
            and self.norm == "recalibrate"
            and not self._recalibrated
            and not self.trainer.interrupted
        ):
            raise RunError(
                "the run was stopped after its last epoch had ended, too late for "
                "norm=recalibrate; give EarlyStopping check_on_train_epoch_end: false."
            )
        if steps > 0 and not self.trainer.interrupted:
            self.checks.check_moved(self, steps)

    def set_mode(self) -> None:
        """Train mode for the backbone, with frozen batch norm where `norm` says so."""
        set_mode(self.backbone, self.norm)

    def share_buffers(self) -> None:
        """Rank 0's buffers (batch-norm statistics) on all ranks."""
        if self.world_size > 1:
            broadcast_buffers(self.named_buffers())

    def on_validation_start(self) -> None:
        """Validation within an epoch sees the same model on all ranks."""
        self.share_buffers()

    # ---- passes over data ------------------------------------------------------------------------

    def iterate_batches(
        self, plan: DataPlan, *, augment: bool, batch_size: int | None = None, shard: str = "rows"
    ) -> Iterator[dict[str, Any]]:
        """Prepared batches of one epoch of `plan` on this rank, outside the training loop (for
        masks and statistics).
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
            batch = self.trainer.strategy.batch_to_device(batch)
            forget, retain = self.prepare_parts(batch)
            yield {"phase": self.phase} | {
                k: v for k, v in (("forget", forget), ("retain", retain)) if v is not None
            }

    def precision(self) -> AbstractContextManager[Any]:
        """The trainer's precision (autocast), for forward passes outside its own steps."""
        return (
            self.trainer.precision_plugin.forward_context()
            if self._trainer is not None
            else nullcontext()
        )

    @property
    def task(self) -> UnlearningDataModule | None:
        """The trainer's task, if it is one of ours."""
        found = getattr(self._trainer, "datamodule", None) if self._trainer is not None else None
        return found if isinstance(found, UnlearningDataModule) else None

    @property
    def world_size(self) -> int:
        """Number of ranks (1 without a trainer)."""
        return self._trainer.world_size if self._trainer is not None else 1

    def sum_over_ranks(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Each tensor, added up over ranks."""
        tensors = list(tensors)
        if self.world_size == 1:
            return tensors
        return [self.trainer.strategy.reduce(t.clone(), reduce_op="sum") for t in tensors]  # type: ignore[misc]

    # ---- checkpoints -----------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Everything but the reference, which is rebuilt from the original weights."""
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "") + "reference."
        for key in [key for key in state if key.startswith(prefix)]:
            del state[key]
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Only `reference.*` may be absent; any other missing, extra or misshaped key is an error,
        whatever `strict` says.
        """
        try:
            result = super().load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:
            found = str(error).splitlines()[-1].strip()
            raise InputError(
                f"the checkpoint does not fit this method and backbone: {found}"
            ) from error
        missing = [key for key in result.missing_keys if not key.startswith("reference.")]
        if missing or result.unexpected_keys:
            word, keys = (
                ("lacks", missing) if missing else ("has an unknown", result.unexpected_keys)
            )
            raise InputError(
                f"the checkpoint {word} {', '.join(keys[:3])}; it was written for another method "
                "or backbone."
            )
        return result

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """How to build this module again, and which original it began from. Plain data: it loads
        with `weights_only=True`.
        """

        self.checks.check_pending(self)
        self.checks.check_weights(self)
        checkpoint["mu"] = {
            "epoch_end_due": epoch_end_pending(self.trainer),
            "version": __version__,
            "spec": to_spec(self),
            "seed": self.seed,
            "original_hash": self.original_hash,
            "recipe": self.recipe_hash(),
            "seconds": dict(self.stopwatch.seconds()),
            "split": self.task.split.hash if self.task is not None else "",
            "train_split": self.task.original_split.train_hash if self.task is not None else "",
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume from other original weights or with another seed."""
        record = checkpoint.get("mu", {})
        self._epoch_end_pending = bool(record.get("epoch_end_due")) and self._resuming()
        if not self.stopwatch.seconds():  # a fresh process: what the run took before belongs to it
            self.stopwatch.add(record.get("seconds", {}))
        # only evaluated: what the run began from stands in its checkpoint, whatever the backbone
        # was built with
        if not self._resuming():
            self.original_hash = record.get("original_hash") or self.original_hash
            self._recipe = record.get("recipe")
            return
        if record.get("seed", self.seed) != self.seed:
            raise InputError(
                f"the checkpoint was written with seed {record['seed']}, but this run has seed "
                f"{self.seed}; resume with the same seed, or begin another run."
            )
        if self.original_hash and record.get("original_hash") not in ("", None, self.original_hash):
            raise InputError(
                f"the checkpoint began from original weights {record['original_hash']}, but the "
                f"backbone holds {self.original_hash}; resume with the weights that the run began "
                "from."
            )

    def _resuming(self) -> bool:
        from lightning.pytorch.trainer.states import TrainerFn

        return self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING

    # ---- identity --------------------------------------------------------------------------------

    def recipe_hash(self) -> str:
        """The recipe by which the original was trained: this run's own for Train and Retrain, else
        what came with the weights.
        """
        if self._recipe is not None and not self._resuming():
            return self._recipe
        if not self.trains_from_scratch:
            return str(getattr(self.backbone, "weights_metadata", {}).get("recipe", ""))
        from mu.core.module import recipe_hash

        return recipe_hash(self)


def recipe_hash(module: UnlearningModule) -> str:
    """The recipe of a run that trains from scratch: architecture, optimizer, schedule, epochs,
    batches, augmentation.

    Seeds and weights are left out, so that an original and its oracle have the same recipe.
    """
    backbone = to_spec(module.backbone)
    if isinstance(backbone, dict):
        backbone = {
            **backbone,
            "init_args": {
                k: v
                for k, v in backbone["init_args"].items()
                if k not in ("weights", "pretrained", "init_seed") and v is not None
            },
        }
    trainer = module._trainer
    return digest(
        {
            "backbone": backbone,
            "optimizer": to_spec(module.make_optimizer),
            "scheduler": to_spec(module.scheduler),
            "norm": module.norm,
            "epochs": trainer.max_epochs if trainer is not None else None,
            "clip": trainer.gradient_clip_val if trainer is not None else None,
            "precision": str(trainer.precision) if trainer is not None else None,
            "task": module.task.recipe() if module.task is not None else None,
        }
    )
