"""Methods with a second model in the same run: a proxy, a reinforced copy, a fake score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.methods.bases.phases import check_max_epochs
from mu.utils.errors import InputError, MissingMethodError
from mu.utils.modules import AnyModel, separate_copy

AUXILIARY = 0
"""Phase of the plan in which the auxiliary model is trained."""


def refuse_sharding(module: UnlearningModule) -> None:
    """Refuse weights sharded over ranks: two models that share weights cannot both divide them.

    Raises:
        InputError: names the strategy to take.
    """
    if module.device_mesh is not None:
        raise InputError(
            f"{type(module).__name__} holds two models that share weights, which cannot be "
            "sharded; take the strategy ddp."
        )


def trainable_copy(backbone: AnyModel) -> AnyModel:
    """A second model with the same weights; weights that are not trained are shared, not copied."""
    return separate_copy(backbone, [p for p in backbone.parameters() if not p.requires_grad])


def trainable_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of a model that take a gradient."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def with_idle(loss: Tensor, idle: nn.Module, world_size: int) -> Tensor:
    """The loss plus zero times the idle model's weights, on several ranks.

    DDP waits for a gradient of every trainable weight in every loss.

    Args:
        loss: a scalar of the model that is trained in this step.
        idle: the other model.
        world_size: number of ranks; the loss of one rank is returned as it is.
    """
    if world_size == 1:
        return loss
    return loss + 0 * torch.stack([weight.sum() for weight in trainable_weights(idle)]).sum()


def clear_gradients(idle: nn.Module) -> None:
    """Take the idle model's gradients away, so that the optimizer leaves its weights alone.

    Momentum and weight decay would move a weight whose gradient is zero.
    """
    for weight in trainable_weights(idle):
        weight.grad = None


class TwoModelMethod(UnlearningModule):
    """Two models in one run: the first epochs train an auxiliary model, the others the backbone.

    Each model is a group of the one optimizer, and in every step one of them is idle: its weights
    stay as they are. A subclass makes the auxiliary model in `configure_model`, under an attribute
    of its own (a checkpoint's keys begin with its name), returns it from `auxiliary_model`, and has
    a plan of `Phases` whose first phase lasts `auxiliary_epochs`.

    Attributes:
        auxiliary_activity: verb phrase of the first phase, for messages.

    Args:
        backbone: the original.
        auxiliary_epochs: epochs that train the auxiliary model, at least 1.
        auxiliary_lr: learning rate of the auxiliary model.
    """

    auxiliary_activity: str = "trains its auxiliary model"

    def __init__(
        self, backbone: Backbone, auxiliary_epochs: int, auxiliary_lr: float, **kwargs: Any
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.auxiliary_epochs = auxiliary_epochs
        self.auxiliary_lr = auxiliary_lr

    @property
    def auxiliary_model(self) -> nn.Module:
        """The second model, which `configure_model` has made."""
        raise MissingMethodError(f"{type(self).__name__} does not override auxiliary_model.")

    def idle(self, phase: int) -> nn.Module:
        """The model that a step of this phase does not train."""
        return self.backbone if phase == AUXILIARY else self.auxiliary_model

    def setup(self, stage: str) -> None:
        """Refuse a fit that would end before it unlearns."""
        super().setup(stage)
        if stage == "fit":
            check_max_epochs(self, self.auxiliary_epochs, self.auxiliary_activity, "unlearns")

    def parameter_groups(self) -> list[dict[str, Any]]:
        """A group for each model; the auxiliary one has its own learning rate."""
        auxiliary = trainable_weights(self.auxiliary_model)
        return [*super().parameter_groups(), {"params": auxiliary, "lr": self.auxiliary_lr}]

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """The objective's loss, with the zero term of the idle model."""
        loss = super().training_step(batch, batch_idx)
        return with_idle(loss, self.idle(self.phase), self.world_size)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """The idle model keeps its weights."""
        clear_gradients(self.idle(self.phase))
        super().on_before_optimizer_step(optimizer)
