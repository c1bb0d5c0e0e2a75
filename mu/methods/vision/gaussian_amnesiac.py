"""Gaussian-Amnesiac: random targets for regression, from the targets' normal distribution.

Tarun, Chundawat, Mandal and Kankanhalli, "Deep Regression Unlearning", ICML 2023, arXiv 2210.08196.

    min_θ E_{D_f} |f_θ(x) − y'| + E_{D_r} |f_θ(x) − y|
    y' ~ N(mean, sd) of the training targets, drawn once

The loss is the regressor's own, L1 unless it was built otherwise. Defaults: union of both parts,
Adam 1e-3, 1 epoch, batch 256 (AgeDB notebook).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable

from mu.backbones import Regressor
from mu.core.substitutes import Substitute
from mu.data.plan import DataPlan, Union
from mu.methods.components.substitutes import GaussianTarget
from mu.methods.general.random_label import RandomLabel


class GaussianAmnesiac(RandomLabel):
    """RandomLabel with Gaussian targets, on the union.

    Args:
        backbone: the original.
        optimizer: optimizer factory; for the source of the default see above.
        substitute: draws the random targets.
        plan: `Union()`.
    """

    default_epochs = 1

    def __init__(
        self,
        backbone: Regressor,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=1e-3),
        substitute: Substitute | None = None,
        plan: DataPlan = Union(),  # noqa: B008 - a frozen value
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone,
            optimizer=optimizer,
            substitute=GaussianTarget() if substitute is None else substitute,
            plan=plan,
            **kwargs,
        )
