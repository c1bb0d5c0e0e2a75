"""Retraining from new weights without the forget set: the oracle, exact unlearning.

θ* = argmin ℓ(D_r) from a random initialisation, by the original's own recipe.

With the seed that initialised the original, the oracle begins from the same weights (as in the
OPTML scripts, where `train_seed` serves both); they hold nothing of the data.
"""

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone
from mu.core.lr import LRSchedule, Steps
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Retain


class Retrain(UnlearningModule):
    """Initialise again, then minimise the backbone's loss over the retain set.

    Args:
        backbone: its weights are replaced by new ones, drawn from `seed`.
        optimizer: the original's.
        scheduler: the original's; `Steps()` when None.
    """

    default_epochs = 182
    plan = Retain()
    needs_forget = False
    trains_from_scratch = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.1, momentum=0.9, weight_decay=5e-4
        ),
        scheduler: LRSchedule | LRSchedulerCallable | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone,
            optimizer=optimizer,
            scheduler=Steps() if scheduler is None else scheduler,
            **kwargs,
        )

    def configure_model(self) -> None:
        """New weights before the first step; a checkpoint loaded afterwards replaces them."""
        if not self.original_hash:
            self.backbone.load_state_dict(self.backbone.fresh(self.seed).state_dict())
        super().configure_model()

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert retain is not None
        return {"loss": self.reduce(self.backbone.loss(retain), retain)}
