"""Fine-tuning on the retain set (FT): unlearning by catastrophic forgetting.

Warnecke, Pirch, Wressnegger and Rieck, "Machine Unlearning of Features and Labels", NDSS 2023,
arXiv 2108.11577; Golatkar et al., CVPR 2020. As a baseline in SalUn (Fan et al., ICLR 2024, arXiv
2310.12508).

    min_θ ℓ(D_r), from θ_o

Defaults: SGD 0.01, momentum 0.9, weight decay 5e-4, constant, 10 epochs (README of Unlearn-Sparse;
the milestones in its code are never reached, so that the learning rate stays constant).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Retain


class FineTune(UnlearningModule):
    """Minimise the backbone's loss over the retain set, from the original weights.

    Args:
        backbone: the original.
        optimizer: optimizer factory; for the source of the default see above.
    """

    plan = Retain()
    needs_forget = False

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.01, momentum=0.9, weight_decay=5e-4
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert retain is not None
        return {"retain": self.reduce(self.backbone.loss(retain), retain)}
