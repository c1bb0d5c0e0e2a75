"""WGA: weighted gradient ascent, which fades with a token's probability.

For language models. Wang, Zhou, Zhou, Shin, Han and Weinberger, "Rethinking LLM Unlearning
Objectives: A Gradient Perspective and Go Beyond", ICLR 2025, arXiv 2502.19301.

    min_θ −γ Σ_t sg[p_t^β] ℓ_t / N + α ℓ(D_r),    p_t = exp(−ℓ_t) over the answer tokens of D_f

The weight takes no gradient: a token's ascent vanishes with its probability, whereas unweighted
ascent does not stop. β = 0 is GradDiff. Defaults: β = γ = α = 1, retain term NLL, AdamW 1e-5 (2e-5
for phi-1.5), 5 epochs, 16 pairs in a step; weight decay 0.01 as in TOFU. The port in OpenUnlearning
keeps a reference copy that it never uses; here there is none.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import CausalLM, WeightedSum
from mu.data.batch import Batch
from mu.functional.tokens import weighted_ascent
from mu.methods.bases.forget_retain import ForgetRetainMethod
from mu.methods.components.retain_terms import RetainTerm


class WGA(ForgetRetainMethod):
    """Ascent on forget, each token weighed by a power of its probability, and a retain term.

    Args:
        backbone: the original.
        beta: β >= 0.
        forget_weight: γ > 0.
        retain_weight: α >= 0; with 0 the retain part is not read.
        retain: the retain term; `NLL()` when None.
        optimizer: optimizer factory; for the source of the default see above.
    """

    default_epochs = 5

    def __init__(
        self,
        backbone: CausalLM,
        beta: float = 1.0,
        forget_weight: float = 1.0,
        retain_weight: float = 1.0,
        retain: RetainTerm | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone, forget_weight, retain_weight, retain, optimizer=optimizer, **kwargs
        )
        self.beta = beta

    def forget_loss(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        return weighted_ascent(*self.model.token_nll(forget, prediction), self.beta)
