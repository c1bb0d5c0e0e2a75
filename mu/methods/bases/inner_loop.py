"""Methods whose every epoch begins with an inner descent from which the weights come back."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.utils.errors import InputError
from mu.utils.modules import buffer_like, register_like
from mu.utils.sharded import local_part

_PREFIX = "kept_of_"


class InnerLoopMethod(UnlearningModule):
    """A bilevel method: descent φ from θ in the first phases of an epoch, then steps from θ again.

    A subclass has a plan whose first `inner_epochs` phases are those of the descent. θ, φ and the
    optimizer's moments are in the checkpoint.

    Attributes:
        inside: whether the weights are φ.
        inner_loss: mean loss of the last inner epoch, once the descent is over.
        inner_count: samples of that mean.

    Args:
        backbone: the original.
        inner_epochs: K >= 0, phases of the descent in each epoch.
    """

    inside: Tensor
    inner_loss: Tensor
    inner_count: Tensor

    def __init__(self, backbone: Backbone, inner_epochs: int, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.inner_epochs = inner_epochs
        self.register_buffer("inside", torch.tensor(False))
        self.register_buffer("inner_loss", torch.zeros(()))
        self.register_buffer("inner_count", torch.zeros(()))
        self._moments: dict[Any, Any] = {}

    def configure_model(self) -> None:
        """Buffers for θ, which a checkpoint written during the descent holds beside φ."""
        first = not self.original_hash
        super().configure_model()
        if first:
            weights = [(name, weight.detach()) for name, weight in self.trainable()]
            register_like(self, _PREFIX, weights, torch.clone)

    def setup(self, stage: str) -> None:
        """Refuse accumulated batches: some would be shown to θ and some to φ."""
        super().setup(stage)
        if stage == "fit" and self.trainer.accumulate_grad_batches != 1:
            raise InputError(
                f"{type(self).__name__} changes weights between batches, so it cannot accumulate "
                "them; set accumulate_grad_batches: 1 and a larger batch."
            )

    # ---- descent and return ----------------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The first batch of the descent saves θ; the first batch after it restores θ."""
        super().on_train_batch_start(batch, batch_idx)
        inner = int(batch.get("phase", self.inner_epochs)) < self.inner_epochs
        inside = bool(self.inside)
        if inner and not inside:
            self.begin_descent()
        elif inside and not inner:
            self.end_descent()

    @torch.no_grad()
    def begin_descent(self) -> None:
        """Save θ and the moments of its optimizer."""
        torch._foreach_copy_(self.saved_weights(), self._local_weights())
        self.save_moments()
        self.inner_loss.zero_()
        self.inner_count.zero_()
        self.inside.fill_(True)

    @torch.no_grad()
    def end_descent(self) -> None:
        """Restore θ; the inner loss is the mean over the last inner epoch."""
        self.inner_loss /= self.inner_count
        torch._foreach_copy_(self._local_weights(), self.saved_weights())
        self.restore_moments()
        self.inside.fill_(False)

    def saved_weights(self) -> list[Tensor]:
        """θ, one buffer for each trainable weight; this rank's shard of a sharded one."""
        return [local_part(buffer_like(self, _PREFIX, name)) for name, _ in self.trainable()]

    def _local_weights(self) -> list[Tensor]:
        return [local_part(weight) for _, weight in self.trainable()]

    def add_inner_loss(self, loss: Tensor, part: Batch) -> None:
        """Count a batch of the last inner epoch in `inner_loss`.

        Args:
            loss: a scalar, the batch's share of the mean on this rank.
            part: the batch; its `count` is the samples of the step on all ranks.
        """
        if self.phase == self.inner_epochs - 1:
            count = part.get("count", len(part["index"]))
            # equal on all ranks, as buffers must be
            self.inner_loss += self.sum_over_ranks([loss.detach()])[0] / self.world_size * count
            self.inner_count += count

    # ---- moments of the optimizer ----------------------------------------------------------------

    def save_moments(self) -> None:
        """The descent begins with moments of zero."""
        self._moments = deepcopy(self.trainer.optimizers[0].state_dict()["state"])
        self._load_moments({})

    def restore_moments(self) -> None:
        """The steps go on with the moments of the steps before the descent."""
        self._load_moments(self._moments)
        self._moments = {}

    def _load_moments(self, state: dict[Any, Any]) -> None:
        optimizer = self.trainer.optimizers[0]
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the moments of the steps."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["moments"] = self._moments

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the moments of the steps."""
        super().on_load_checkpoint(checkpoint)
        self._moments = checkpoint.get("moments", {})
