"""WHP at inference: the original's logits, lowered where a reinforced model's are higher.

For language models; forget alone. Eldan and Russinovich, "Who's Harry Potter? Approximate
Unlearning in LLMs", arXiv 2310.02238, in the form of Shi et al., "MUSE", ICLR 2025, arXiv
2407.06460, which trains nothing after the reinforced model.

    θ_re = θ after fine-tuning on D_f;    served:  v_θo − α relu(v_θre − v_θo)

Defaults: AdamW 1e-5, 10 epochs, α = 4 (MUSE, News; 256 for Books).
"""

from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import CausalLM
from mu.backbones.language.two_models import GenericLogits
from mu.core.module import UnlearningModule
from mu.core.reference import frozen_copy
from mu.data.batch import Batch
from mu.data.plan import Forget
from mu.methods.bases.two_models import refuse_sharding
from mu.utils.errors import InputError


class WHPInference(UnlearningModule):
    """The backbone is trained on forget; served are its logits combined with the original's.

    Two models in memory, and in the checkpoint; every answer costs two forward passes.

    Args:
        backbone: the original.
        alpha: α >= 0.
        optimizer: AdamW 1e-5, 10 epochs (MUSE).
    """

    plan = Forget()
    needs_retain = False

    def __init__(
        self,
        backbone: CausalLM,
        alpha: float = 4.0,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if alpha < 0:
            raise InputError(
                f"alpha is {alpha}; below 0, reinforced tokens would become likelier; give at "
                "least 0."
            )
        self.alpha = alpha
        self.original: CausalLM | None = None

    def configure_model(self) -> None:
        """The original is part of the served model, so it is in the checkpoint."""
        refuse_sharding(self)
        if self.original is None:
            self.original = cast(CausalLM, frozen_copy(self.backbone))
        super().configure_model()

    def served(self) -> GenericLogits:
        """Both models' logits combined."""
        assert isinstance(self.backbone, CausalLM)
        return GenericLogits(self.original or self.backbone, self.backbone, self.alpha)

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        return {"reinforce": self.reduce(self.backbone.loss(forget), forget)}
