"""Training of the original on all data.

No paper: the recipe that every other run refers to. The default is the base recipe of the OPTML
code (Jia et al., NeurIPS 2023; Fan et al., ICLR 2024): SGD 0.1, momentum 0.9, weight decay 5e-4,
times 0.1 at half and at three quarters of the run (epochs 91 and 136 of 182).
"""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone
from mu.core.lr import LRSchedule, Steps
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Everything


class Train(UnlearningModule):
    """Minimise the backbone's loss over the whole training set.

    Args:
        backbone: usually with new weights.
        optimizer: of the recipe.
        scheduler: of the recipe; `Steps()` when None.
    """

    default_epochs = 182
    plan = Everything()
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

    def prepare_parts(self, batch: Mapping[str, Any]) -> tuple[Batch | None, Batch | None]:
        """Nothing is forgotten yet, so every sample counts as retained."""
        return None, self.prepare(batch["train"])

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert retain is not None
        return {"loss": self.reduce(self.backbone.loss(retain), retain)}
