"""UNDIAL: self-distillation with the logit of each true token lowered.

For language models. Dong, Lin, Belkin, Huerta and Vulić, "UNDIAL: Self-Distillation with Adjusted
Logits for Robust Unlearning in Large Language Models", NAACL 2025, arXiv 2402.10052.

    min_θ γ mean over the answer tokens of D_f of CE(softmax(z_ref − β onehot(y)), p_θ) + α ℓ(D_r)

The target is fixed, so the loss is bounded from below by the target's entropy and longer training
does not forget more. The port in OpenUnlearning masks no positions:
`mu.methods.compat.UNDIALReference`, preset `undial_reference_code`. Defaults: β = 10 (the authors
search 3, 10, 30), γ = 1, α = 0 (no retain part), AdamW 1e-4 (they search 1e-5, 1e-4, 3e-4), 10
epochs, 32 in a step; they train LoRA of rank 8 and α 16 on Llama-2-7B.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import CausalLM, WeightedSum
from mu.data.batch import Batch
from mu.functional.tokens import undial
from mu.methods.bases.forget_retain import ForgetRetainMethod
from mu.methods.components.retain_terms import RetainTerm


class UNDIAL(ForgetRetainMethod):
    """Cross-entropy to the original's distribution with the true token lowered.

    Args:
        backbone: the original.
        beta: β >= 0, by how much the true token's logit is lowered.
        forget_weight: γ > 0.
        retain_weight: α >= 0; with 0 the retain part is not read.
        retain: the retain term; `NLL()` when None.
        optimizer: optimizer factory; for the source of the default see above.
    """

    needs_reference = True  # type: ignore[assignment]

    def __init__(
        self,
        backbone: CausalLM,
        beta: float = 10.0,
        forget_weight: float = 1.0,
        retain_weight: float = 0.0,
        retain: RetainTerm | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-4),
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone, forget_weight, retain_weight, retain, optimizer=optimizer, **kwargs
        )
        self.beta = beta

    def forget_loss(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        logits, labels = self.model.token_logits(forget, prediction)
        return undial(logits, self.original_logits(forget), labels, self.beta)
