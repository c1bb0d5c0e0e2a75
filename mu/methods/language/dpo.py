"""DPO and IdkDPO: preference of a substitute answer over the forget answer.

For language models. Rafailov et al., "Direct Preference Optimization: Your Language Model is
Secretly a Reward Model", NeurIPS 2023, arXiv 2305.18290; as a baseline of unlearning Maini et al.
(TOFU), arXiv 2401.06121, and Zhang et al. (NPO), arXiv 2404.05868.

    Δ = log π_θ(y_w|x) / π_θo(y_w|x) − log π_θ(y|x) / π_θo(y|x)
    min_θ −γ (2/β) E_f log σ(β Δ) + α ℓ(D_r)

y is the forget sample's own answer and y_w its substitute, the preferred answer; log π are sums
over an answer's tokens, the end of the sequence included. The factor 2/β is not in Rafailov et al.;
it makes a small β comparable with gradient ascent (code of NPO, OpenUnlearning). π_θo is computed
once for each distinct answer of the whole run, before the first step, so that no second model is in
memory.

Variants: IdkDPO prefers a refusal, drawn anew at each visit of a question. RWKU's DPO prefers an
invented biography, 3 epochs at 5e-6. TOFU's own code declares `dpo` but cannot run it, because it
never loads a reference model.

Defaults: β = 0.1, γ = α = 1; AdamW 1e-5, weight decay 0.01 (10 epochs, linear decay after one epoch
of warm-up, batch 32).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import CausalLM
from mu.core.substitutes import Substitute
from mu.data.batch import Batch
from mu.functional.preference import dpo
from mu.methods.bases.forget_retain import ReferenceRatioMethod
from mu.methods.bases.joint import predictions
from mu.methods.components.answers import Refusal
from mu.methods.components.retain_terms import RetainTerm


class DPO(ReferenceRatioMethod):
    """Preference of the substitute over the forget answer; a retain term.

    Args:
        backbone: the original.
        substitute: source of the preferred answers.
        beta: β > 0, inverse temperature.
        forget_weight: γ > 0.
        retain_weight: α >= 0; with 0 the retain part is not read.
        retain: the retain term; `NLL()` when None.
        optimizer: optimizer factory; for the source of the default see above.
    """

    needs_substitute = True

    def __init__(
        self,
        backbone: CausalLM,
        substitute: Substitute | None = None,
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
        self.substitute = substitute

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        win = self.winners(forget)
        of_win, of_lose, *of_retain = predictions(self.backbone, win, forget, retain)
        terms = {
            "forget": self.forget_weight
            * self.mean(self.compared(forget, of_lose, win, of_win), forget)
        }
        if retain is not None:
            terms["retain"] = self.retain_weight * self.retain.term(self, retain, of_retain[0])
        return terms

    def sequence_loss(self, forget: Batch, prediction: Tensor) -> Tensor:
        win = self.winners(forget)
        return self.compared(forget, prediction, win, self.backbone.predict(win))

    @staticmethod
    def winners(forget: Batch) -> Batch:
        """The same questions with the answers that are to win."""
        return {
            name: forget[name] for name in ("index", "visit", "padded") if name in forget
        } | forget["substitute"]

    def compared(self, forget: Batch, of_lose: Tensor, win: Batch, of_win: Tensor) -> Tensor:
        """The loss of each pair, `[B]`."""
        won = self.backbone.nll(win, prediction=of_win)
        lost = self.backbone.nll(forget, prediction=of_lose)
        return dpo(
            won, self.reference_nll.value(win), lost, self.reference_nll.value(forget), self.beta
        )


class IdkDPO(DPO):
    """DPO whose winner is a refusal.

    Args:
        backbone: the original.
        substitute: `Refusal()` when None.
    """

    def __init__(
        self, backbone: CausalLM, substitute: Substitute | None = None, **kwargs: Any
    ) -> None:
        super().__init__(
            backbone, substitute=Refusal() if substitute is None else substitute, **kwargs
        )
