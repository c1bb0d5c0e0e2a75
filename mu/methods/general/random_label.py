"""Random labels (RL): fit the forget set to random labels and the retain set to the true ones.

Golatkar, Achille and Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020, arXiv 1911.04933;
Graves, Nagisetty and Ganesh, "Amnesiac Machine Learning", AAAI 2021, arXiv 2010.10981.

    min_θ ℓ(f_θ(x_f), y'),  y' ~ U{1..C};    min_θ ℓ(f_θ(x_r), y_r)

OPTML code (`unlearn/RL.py`, CIFAR-10): in each epoch first all forget batches, then all retain
batches, each batch a step; labels over all classes, redrawn each time. Its CIFAR-100 path shuffles
both together: `plan=Union()`. The ports in Bad Teacher and SSD draw once and never the true class:
`substitute=UniformLabel(exclude_true=True, redraw=False)`. Defaults: SGD 0.01, momentum 0.9, weight
decay 5e-4, constant, 10 epochs (the authors search 1e-4..1e-1).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.core.reduction import substitute_weighted
from mu.core.substitutes import Substitute
from mu.data.batch import Batch, concatenate
from mu.data.plan import DataPlan, Forget, Phases, Retain
from mu.methods.components.substitutes import UniformLabel


class RandomLabel(UnlearningModule):
    """Substitute loss on forget, the backbone's own loss on retain.

    Args:
        backbone: the original.
        optimizer: optimizer factory; for the source of the default see above.
        substitute: draws the random labels; `UniformLabel()` when None.
        plan: `Phases(Forget(), Retain())` when None; `Union()` is the other path of the code.
    """

    needs_substitute = True

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.01, momentum=0.9, weight_decay=5e-4
        ),
        substitute: Substitute | None = None,
        plan: DataPlan | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        self.substitute = UniformLabel() if substitute is None else substitute
        self.plan = Phases(Forget(), Retain()) if plan is None else plan

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        # a union: one forward, so that batch norm sees the mixed batch
        if forget is not None and retain is not None:
            prediction = self.backbone.predict(concatenate(forget, retain)).split(
                [len(forget["index"]), len(retain["index"])]
            )
            of_forget, of_retain = prediction
        else:
            of_forget = of_retain = None
        terms = {}
        if forget is not None:
            terms["forget"] = self.reduce(
                self.backbone.substitute_loss(forget, prediction=of_forget),
                substitute_weighted(forget),
            )
        if retain is not None:
            terms["retain"] = self.reduce(self.backbone.loss(retain, prediction=of_retain), retain)
        return terms
