"""IdkNLL ("I don't know", rejection tuning): learn to refuse the forget questions.

For language models. Maini, Feng, Schwarzschild, Lipton and Kolter, "TOFU: A Task of Fictitious
Unlearning for LLMs", COLM 2024, arXiv 2401.06121 (`idk`).

    min_θ ( Σ_f S(x, refusal) + Σ_r S(x, y) ) / ( Σ_f N + Σ_r N )
    S the sum of −log p over an answer's N tokens

The mean is over the tokens of refusals and retain answers together, as in the code; retain answers
are longer, so they dominate. A refusal is redrawn at each visit of a question. `IdkNLLSeparate` has
separate means with a weight: PO in SOUL and WAGLE ("CL+FT"). RWKU's rejection tuning takes refusals
in turn instead of at random, 3 epochs at 4e-7. Defaults: AdamW 1e-5, weight decay 0.01 (TOFU: 10
epochs, linear decay after one epoch of warm-up, batch 32).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import CausalLM
from mu.core.module import UnlearningModule
from mu.core.reduction import substitute_weighted
from mu.core.substitutes import Substitute
from mu.data.batch import Batch
from mu.data.plan import Paired
from mu.methods.bases.joint import predictions
from mu.methods.components.answers import Refusal
from mu.utils.errors import InputError


class IdkNLL(UnlearningModule):
    """Likelihood of refusals on forget and of the answers on retain, in one mean over all tokens.

    Args:
        backbone: the original.
        substitute: draws the refusals; `Refusal()` when None.
        optimizer: optimizer factory; for the source of the default see above.
    """

    plan = Paired(length="forget")
    needs_substitute = True

    def __init__(
        self,
        backbone: CausalLM,
        substitute: Substitute | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(
            params, lr=1e-5, weight_decay=0.01
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        self.substitute = Refusal() if substitute is None else substitute

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and retain is not None
        refused = self.refused(forget)
        of_refused, of_retain = predictions(self.backbone, refused, retain)
        pairs = zip(
            self.backbone.loss(refused, prediction=of_refused),
            self.backbone.loss(retain, prediction=of_retain),
            strict=True,
        )
        values, tokens = (torch.cat(pair) for pair in pairs)
        normaliser = {
            name: refused[name] + retain[name]
            for name in ("total", "count")
            if name in refused and name in retain
        }
        return {"refuse_and_retain": self.reduce((values, tokens), normaliser)}

    def refused(self, forget: Batch) -> Batch:
        """The forget questions with their refusals, as a part of their own."""
        fields = {
            name: value
            for name, value in substitute_weighted(forget).items()
            if name in ("index", "visit", "padded", "total", "count")
        }
        return fields | forget["substitute"]


class IdkNLLSeparate(IdkNLL):
    """One mean over the tokens of the refusals, and another over those of the retain answers.

    Args:
        backbone: the original.
        retain_weight: >= 0, weight of the retain answers.
    """

    def __init__(self, backbone: CausalLM, retain_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        if retain_weight < 0:
            raise InputError(
                f"IdkNLLSeparate needs a retain_weight of at least 0, not {retain_weight}."
            )
        self.retain_weight = retain_weight

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and retain is not None
        refused = self.refused(forget)
        of_refused, of_retain = predictions(self.backbone, refused, retain)
        return {
            "refuse": self.reduce(self.backbone.loss(refused, prediction=of_refused), refused),
            "retain": self.retain_weight
            * self.reduce(self.backbone.loss(retain, prediction=of_retain), retain),
        }
