"""NPO (negative preference optimisation): the forget answers are the losing ones, with no winner.

For language models. Zhang, Lin, Bai and Mei, "Negative Preference Optimization: From Catastrophic
Collapse to Effective Unlearning", COLM 2024, arXiv 2404.05868.

    min_θ γ (2/β) E_f log(1 + (π_θ(y|x) / π_θo(y|x))^β) + α ℓ(D_r)

log π is the sum over an answer's tokens, the end of the sequence included; the first term is a mean
over sequences, and ℓ a mean over tokens. The gradient is that of gradient ascent on the sum, times
2 π_θ^β / (π_θ^β + π_θo^β): 1 at first, and vanishing for forgotten answers. π_θo(y|x) is computed
once for each forget answer, before the first step, so that no second model is in memory (except
with KL()).

Variants: the paper's NPO is `retain_weight: 0`, NPO+RT the default (npo_grad_diff in its code),
NPO+KL `retain: KL()`. RWKU takes β = 0.2 and the loss on all tokens of a biography. MUSE's code
applies the formula to the raw logits of all vocabulary entries, without softmax and without the
answer: the NPO in its tables is another method, which is not implemented here.

Defaults: β = 0.1, γ = α = 1; AdamW 1e-5, weight decay 0.01 (10 epochs, linear decay after one epoch
of warm-up, batch 32).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import CausalLM
from mu.data.batch import Batch
from mu.functional.preference import npo
from mu.methods.bases.forget_retain import ReferenceRatioMethod
from mu.methods.components.retain_terms import RetainTerm


class NPO(ReferenceRatioMethod):
    """Negative preference loss on the forget answers; a retain term.

    Args:
        backbone: the original.
        beta: β > 0, inverse temperature; towards 0 it is gradient ascent.
        forget_weight: γ > 0.
        retain_weight: α >= 0; with 0 the retain part is not read.
        retain: the retain term; `NLL()` when None.
        optimizer: optimizer factory; for the source of the default see above.
    """

    def __init__(
        self,
        backbone: CausalLM,
        beta: float = 0.1,
        forget_weight: float = 1.0,
        retain_weight: float = 1.0,
        retain: RetainTerm | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(
            params, lr=1e-5, weight_decay=0.01
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone, beta, forget_weight, retain_weight, retain, optimizer=optimizer, **kwargs
        )

    def sequence_loss(self, forget: Batch, prediction: Tensor) -> Tensor:
        nll = self.backbone.nll(forget, prediction=prediction)
        return npo(nll, self.reference_nll.value(forget), self.beta)
