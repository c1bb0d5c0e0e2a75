"""Gradient ascent (GA, NegGrad): raise the loss of the forget set.

Golatkar, Achille and Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020, arXiv 1911.04933
(as a baseline); Thudi, Deza, Chandrasekaran and Papernot, "Unrolling SGD: Understanding Factors
Influencing Machine Unlearning", EuroS&P 2022, arXiv 2109.13398.

    min_θ −ℓ(D_f), from θ_o

The objective has no lower bound: too high a learning rate or too many epochs ruin the model on all
data (one library's table reports 10 % accuracy on all parts of CIFAR-10 at 0.01). Weight decay and
momentum stay active. Batch-norm statistics are updated on forget data alone: `norm: eval` freezes
them, `norm: recalibrate` recomputes them on the retain part (which is then required).

Defaults: SGD 1e-4, momentum 0.9, weight decay 5e-4, constant, 5 epochs (README of Unlearn-Sparse;
its authors recommend that value for class-wise forgetting on CIFAR-10 only, and search 1e-5..1e-1
for random forgetting, where 5e-4..1e-3 suits 10 %).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Forget


class GradientAscent(UnlearningModule):
    """Maximise the backbone's loss over the forget set.

    Args:
        backbone: the original.
        optimizer: optimizer factory; for the source of the default see above.
    """

    default_epochs = 5
    plan = Forget()
    needs_retain = False

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=1e-4, momentum=0.9, weight_decay=5e-4
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        return {"forget": -self.reduce(self.backbone.loss(forget), forget)}
