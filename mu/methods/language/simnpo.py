"""SimNPO: NPO without a reference, on the mean over an answer's tokens.

For language models. Fan, Liu, Lin, Jia, Zhang, Mei and Liu, "Simplicity Prevails: Rethinking
Negative Preference Optimization for LLM Unlearning", arXiv 2410.07163.

    min_θ γ (2/β) E_f log(1 + exp(−β (A_θ(y|x) − δ))) + α ℓ(D_r)
    A the mean of −log p over an answer's tokens

Names: the paper's γ is the margin, which is β δ here (δ as in OpenUnlearning); γ here is the weight
of the forget term. The authors' code for MUSE applies the formula to raw logits, as MUSE's own NPO
does; that variant is not implemented. Defaults: β = 4.5, δ = 0, γ = 0.125, α = 1 (OpenUnlearning;
the authors' code for TOFU has the same for forget10, and β = 2.5, γ = 0.1375 for forget05); AdamW
1e-5, weight decay 0.01 (10 epochs, batch 32). WMDP: β = 0.1, γ = 1, 9.5e-6, 500 steps of 4.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import CausalLM
from mu.data.batch import Batch
from mu.functional.preference import simnpo
from mu.methods.bases.forget_retain import SequenceMethod
from mu.methods.components.retain_terms import RetainTerm


class SimNPO(SequenceMethod):
    """Length-normalised negative preference loss on the forget answers; a retain term.

    Args:
        backbone: the original.
        beta: β > 0, inverse temperature.
        delta: δ, margin in nats a token.
        forget_weight: γ > 0.
        retain_weight: α >= 0; with 0 the retain part is not read.
        retain: the retain term; `NLL()` when None.
        optimizer: optimizer factory; for the source of the default see above.
    """

    def __init__(
        self,
        backbone: CausalLM,
        beta: float = 4.5,
        delta: float = 0.0,
        forget_weight: float = 0.125,
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
        self.delta = delta

    def sequence_loss(self, forget: Batch, prediction: Tensor) -> Tensor:
        nll, tokens = self.backbone.loss(forget, prediction=prediction)
        return simnpo(nll / tokens.clamp_min(1), self.beta, self.delta)
