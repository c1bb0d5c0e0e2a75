"""NegGrad+ (GradDiff, "advanced NegGrad"): descend on retain and ascend on forget in the same step.

Kurmanji, Triantafillou, Hayes and Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS
2023, arXiv 2302.09880 (as a baseline).

    min_θ a ℓ(D_r) − (1 − a) ℓ(D_f), from θ_o

Each step takes one retain batch and one forget batch; an epoch is one pass over retain, and the
forget batches are cycled. Retain is passed forward before forget, as in the released code: with
batch norm in train mode, the running statistics of each step end with the forget batch's, and
the other order moves their means by 4e-4 a step.

Names of the weight: in the code of SCRUB and of RUM, a is `alpha` (or `ng_alpha`) and multiplies
*retain*; other libraries call the weight of the *forget* term alpha. Here a is `retain_weight`.

Other code: SCRUB's small-scale notebook keeps the network in eval mode and adds a penalty on the
distance to θ_o: `mu.methods.compat.NegGradPlusPulled`. Its MIA notebook (a = 0.9999, 5 epochs) and
RUM (momentum 0.9, weight decay 5e-4) run in train mode without that penalty, as here.

Defaults: a = 0.95; SGD 0.01, no momentum, no weight decay, constant, 10 epochs (SCRUB's small-scale
notebook).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Paired
from mu.methods.bases.joint import predictions
from mu.utils.errors import InputError


class NegGradPlus(UnlearningModule):
    """The backbone's loss on retain minus the backbone's loss on forget.

    Args:
        backbone: the original.
        retain_weight: a in [0, 1], the weight of the *retain* loss; the forget loss is subtracted
            with weight 1 − a.
        optimizer: optimizer factory; for the source of the default see above.
    """

    plan = Paired()

    def __init__(
        self,
        backbone: Backbone,
        retain_weight: float = 0.95,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(params, lr=0.01),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if not 0 <= retain_weight <= 1:
            raise InputError(
                f"retain_weight is {retain_weight}; the weight of the retain loss lies in [0, 1]."
            )
        self.retain_weight = retain_weight

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and retain is not None
        # retain first: batch norm in train mode takes its last statistics from the forget batch
        of_retain, of_forget = predictions(self.backbone, retain, forget)
        descent = self.reduce(self.backbone.loss(retain, prediction=of_retain), retain)
        ascent = self.reduce(self.backbone.loss(forget, prediction=of_forget), forget)
        return {
            "retain": self.retain_weight * descent,
            "forget": -(1 - self.retain_weight) * ascent,
        }
