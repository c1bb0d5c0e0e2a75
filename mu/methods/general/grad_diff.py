"""GradDiff (gradient difference): ascend on forget and descend on retain, with two weights.

Liu, Liu and Stone, "Continual Learning and Private Unlearning", CoLLAs 2022, arXiv 2203.12817; as a
baseline of language models Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs", COLM
2024, arXiv 2401.06121.

    min_θ −γ ℓ(D_f) + α ℓ(D_r), from θ_o
    with `retain: KL()`, α KL(p_θo ‖ p_θ) on D_r in place of ℓ(D_r)

NegGradPlus has the same direction with weights that sum to 1: γ = α = 1 is twice its objective at a
= 1/2, which matters under gradient clipping and weight decay. For language models ℓ is the mean
over labelled tokens, so that long answers weigh more. An epoch is one pass over forget, and retain
is cycled (OpenUnlearning draws retain rows with replacement). SOUL and WAGLE call the weight of
*retain* gamma; here, as in OpenUnlearning, it is α. ConceptVectors sets it to 1.5. As in gradient
ascent, the objective has no lower bound: 10 epochs at 1e-5 ruin a model of TOFU.

Defaults: γ = α = 1; AdamW 1e-5, weight decay 0.01 (OpenUnlearning, TOFU: 10 epochs, linear decay
after one epoch of warm-up, batch 32).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone, WeightedSum
from mu.data.batch import Batch
from mu.methods.bases.forget_retain import ForgetRetainMethod
from mu.methods.components.retain_terms import RetainTerm


class GradDiff(ForgetRetainMethod):
    """The retain term minus the backbone's loss on forget.

    Args:
        backbone: the original.
        forget_weight: γ > 0.
        retain_weight: α >= 0; with 0 the retain part is not read.
        retain: the retain term; `NLL()` when None.
        optimizer: optimizer factory; for the source of the default see above.
    """

    def __init__(
        self,
        backbone: Backbone,
        forget_weight: float = 1.0,
        retain_weight: float = 1.0,
        retain: RetainTerm | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(
            params, lr=1e-5, weight_decay=0.01
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone, forget_weight, retain_weight, retain, optimizer=optimizer, **kwargs
        )

    def forget_loss(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        loss, weight = self.backbone.loss(forget, prediction=prediction)
        return -loss, weight
