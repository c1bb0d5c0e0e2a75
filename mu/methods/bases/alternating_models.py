"""Methods that train two models in every step, each with an optimizer of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from mu.backbones import Backbone
from mu.core.lr import LRSchedule
from mu.core.module import UnlearningModule
from mu.core.reference import frozen_copy
from mu.data.batch import Batch
from mu.methods.bases.two_models import clear_gradients, trainable_weights, with_idle
from mu.utils.errors import InputError, MissingMethodError
from mu.utils.master_weights import Float32Copies


class AlternatingModelsMethod(UnlearningModule):
    """Two models in every step: an auxiliary model (a fake score, a critic), then the backbone.

    The trainer counts the backbone's steps. A subclass makes the auxiliary model in
    `configure_model`, returns it from `auxiliary_model`, and overrides the two models' terms.

    Attributes:
        average: running average of the backbone's weights, where there is one; in the checkpoint.

    Args:
        backbone: the original.
        auxiliary_optimizer: of the auxiliary model.
        average: decay of the running average, in (0, 1); None has none.
        clip: > 0; gradients are clipped to [−clip, clip], element by element; None clips nothing.
    """

    def __init__(
        self,
        backbone: Backbone,
        auxiliary_optimizer: OptimizerCallable,
        average: float | None = None,
        clip: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if (average is not None and not 0 < average < 1) or (clip is not None and clip <= 0):
            raise InputError(
                f"{type(self).__name__} needs an average in (0, 1) and a clip above 0, not "
                f"{average} and {clip}."
            )
        self.automatic_optimization = False
        self.make_auxiliary_optimizer = auxiliary_optimizer
        self.decay = average
        self.clip = clip
        self.average: Backbone | None = None
        self._exact_average: Float32Copies | None = None
        self._loaded_average: list[Tensor | None] = []

    @property
    def auxiliary_model(self) -> nn.Module:
        """The second model, which `configure_model` has made."""
        raise MissingMethodError(f"{type(self).__name__} does not override auxiliary_model.")

    @property
    def averaged_backbone(self) -> Any:
        """The running average where there is one, else the backbone."""
        return self.backbone if self.average is None else self.average

    def auxiliary_terms(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        """Named terms of the auxiliary model's loss; without any, it makes no step."""
        raise MissingMethodError(f"{type(self).__name__} does not override auxiliary_terms().")

    def backbone_terms(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        """Named terms of the backbone's loss; without any, it makes no step."""
        raise MissingMethodError(f"{type(self).__name__} does not override backbone_terms().")

    def begin_average(self) -> None:
        """Start the running average at the backbone's weights, where there is to be one."""
        if self.decay is not None:
            self.average = frozen_copy(self.backbone)

    def configure_optimizers(self) -> Any:
        """The auxiliary model's optimizer, and the backbone's with its schedule."""
        backbone = super().configure_optimizers()
        auxiliary = self.build_optimizer(
            self.make_auxiliary_optimizer, trainable_weights(self.auxiliary_model)
        )
        if not isinstance(backbone, dict):
            backbone = {"optimizer": backbone}
        return [{"optimizer": auxiliary}, backbone]

    def set_mode(self) -> None:
        """Train mode for the auxiliary model too."""
        super().set_mode()
        self.auxiliary_model.train()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:  # type: ignore[override]
        """A step of the auxiliary model, then one of the backbone."""
        forget, retain = self.prepare_parts(batch)
        auxiliary_optimizer, optimizer = cast(list[Any], self.optimizers())
        # a step of both models is one step of the method, for `max_steps`, checkpoints and logs
        auxiliary_optimizer._on_before_step = _do_nothing
        auxiliary_optimizer._on_after_step = _do_nothing
        auxiliary = self.auxiliary_model
        self._step(auxiliary_optimizer, self.backbone, lambda: self.auxiliary_terms(forget, retain))
        auxiliary.eval()
        self._step(optimizer, auxiliary, lambda: self.backbone_terms(forget, retain))
        auxiliary.train()
        # a schedule of mu.core.lr steps with the optimizer
        if isinstance(self.scheduler, LRSchedule):
            self.lr_schedulers().step()  # type: ignore[union-attr]
        self._update_average()

    def _step(
        self, optimizer: Any, idle: nn.Module, terms: Callable[[], dict[str, Tensor]]
    ) -> None:
        """One step of one model; the weights of the idle model take no gradient, but pass it on."""
        # weights at rest stay so until the end of backward, because checkpointed activations are
        # recomputed there; DDP waits for gradients of all weights, so on several ranks none rests
        alone = self.world_size == 1
        if alone:
            self.toggle_optimizer(optimizer)
        values = terms()
        if values:
            loss = torch.stack(list(values.values())).sum()
            self.checks.check_loss(self, loss)
            optimizer.zero_grad()
            self.manual_backward(with_idle(loss, idle, self.world_size))
        if alone:
            self.untoggle_optimizer(optimizer)
        if not values:
            return
        clear_gradients(idle)
        self.configure_gradient_clipping(optimizer, self.clip, "value")
        self.log_terms(values)
        optimizer.step()

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is not None and self.decay is not None:
            exact = self._exact_average or self._copy_average(self.average)
            weights = [
                weight.detach().to(copy.dtype)
                for copy, (_, weight) in zip(exact.copies, self.trainable(), strict=True)
            ]
            torch._foreach_lerp_(exact.copies, weights, 1 - self.decay)
            exact.write()

    def _copy_average(self, average: Backbone) -> Float32Copies:
        """Float32 copies of the average: half precision rounds a step of 1 − decay away."""
        averages = dict(average.named_parameters())
        self._exact_average = Float32Copies(averages[name] for name, _ in self.trainable())
        if self._loaded_average:
            self._exact_average.load(self._loaded_average)
        return self._exact_average

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the float32 copies of an average in half precision."""
        super().on_save_checkpoint(checkpoint)
        if self._exact_average is not None and self._exact_average.has_copies:
            checkpoint["exact_average"] = self._exact_average.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the float32 copies, for the first step."""
        super().on_load_checkpoint(checkpoint)
        self._loaded_average = checkpoint.get("exact_average", [])

    def on_train_epoch_end(self) -> None:
        """A scheduler of torch is stepped once an epoch."""
        super().on_train_epoch_end()
        if self.scheduler is not None and not isinstance(self.scheduler, LRSchedule):
            self.lr_schedulers().step()  # type: ignore[union-attr]


def _do_nothing() -> None:
    """A replacement for the trainer's count of optimizer steps."""
