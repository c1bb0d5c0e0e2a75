"""SatImp: gradient ascent weighted by saturation and importance of each token.

For language models. Yang, Wang, Huang, Liu, Zhang and Han, "Exploring Criteria of Loss Reweighting
to Enhance LLM Unlearning", ICML 2025, arXiv 2505.11953.

    min_θ −γ Σ_t sg[p_t^β₁ (1 − p_t)^β₂] ℓ_t / N + α ℓ(D_r)
    p_t = exp(−ℓ_t) over the answer tokens of D_f

The first factor is saturation (ascent ends where a token is forgotten), the second importance (a
token that is certain under any question carries little information). A model that gives every token
probability 1 has no gradient at all. The released code has two sets of weights:
class and README have γ = 1 and α = 0.1 (for a small extraction strength), the YAML that its
commands use γ = 0.1 and α = 1 (`configs/method/sat_imp_reference_code.yaml`). Defaults: β₁ = 5, β₂
= 1, γ = 1, α = 0.1, retain term NLL, AdamW 1e-5, 5 epochs, 16 pairs in a step. The port in
OpenUnlearning keeps a reference copy that it never uses; here there is none.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import CausalLM, WeightedSum
from mu.data.batch import Batch
from mu.functional.tokens import sat_imp
from mu.methods.bases.forget_retain import ForgetRetainMethod
from mu.methods.components.retain_terms import RetainTerm


class SatImp(ForgetRetainMethod):
    """Ascent on the forget answers, each token weighed by saturation and importance; a retain term.

    Args:
        backbone: the original.
        beta1: β₁ >= 0, of saturation.
        beta2: β₂ >= 0, of importance.
        forget_weight: γ > 0.
        retain_weight: α >= 0; with 0 the retain part is not read.
        retain: the retain term; `NLL()` when None.
        optimizer: optimizer factory; for the source of the default see above.
    """

    default_epochs = 5

    def __init__(
        self,
        backbone: CausalLM,
        beta1: float = 5.0,
        beta2: float = 1.0,
        forget_weight: float = 1.0,
        retain_weight: float = 0.1,
        retain: RetainTerm | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone, forget_weight, retain_weight, retain, optimizer=optimizer, **kwargs
        )
        self.beta1 = beta1
        self.beta2 = beta2

    def forget_loss(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        return sat_imp(*self.model.token_nll(forget, prediction), self.beta1, self.beta2)
