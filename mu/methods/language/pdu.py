"""PDU (primal-dual unlearning): flat logits on forget under a bound on the retain loss.

For language models. Entesari, Hatami, Khaziev, Ramakrishna and Fazlyab, "Constrained Entropic
Unlearning: A Primal-Dual Framework for Large Language Models", arXiv 2506.05314.

    min_θ max_{λ ≥ 0} mean over the answer tokens of D_f of (max_v z_v − mean_v z_v)²
          + λ (ℓ(D_r) − ε)
    λ ← max(0, λ + η (ℓ(D_r) − ε)) after each step of the optimizer, once the warm-up is over

ε must exceed the original's retain loss; otherwise λ only grows. λ is updated by the retain loss of
the whole step, over all ranks and accumulated batches, and is saved in the checkpoint.

The released code has a λ in each process that is not saved, and updates it with every micro-batch.
It also applies the mask of the unshifted labels to the logits, so that the loss is over other
positions: `mu.methods.compat.PDUReference`.

Defaults (TOFU, Llama-2-7B, Llama-3 1B and 3B): λ₀ = 100, η = 5, ε = 0.3, warm-up 5 of 10 epochs,
AdamW 1e-5, 32 in a step (8B: 30 epochs, Gemma-7B: 20; MUSE: λ₀ = 50, η = 1, warm-up 3, ε = 1.5 for
News and 0.1 for Books with a 7B model, 0.8 and 0.6 with a 13B one).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone, CausalLM, WeightedSum
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Paired
from mu.functional.tokens import logit_margin
from mu.methods.bases.joint import predictions
from mu.utils.errors import InputError


class PDU(UnlearningModule):
    """Flat logits on forget under a constraint on the retain loss, by a dual variable.

    Args:
        backbone: the original.
        epsilon: ε, bound on the retain loss, in nats a token.
        dual: λ₀ >= 0, where the dual variable begins.
        dual_step: η >= 0, its step.
        dual_warmup_epochs: epochs in which it stays.
        optimizer: optimizer factory; for the source of the default see above.
    """

    plan = Paired(length="forget")
    multiplier: Tensor
    retain_loss: Tensor

    def __init__(
        self,
        backbone: CausalLM,
        epsilon: float = 0.3,
        dual: float = 100.0,
        dual_step: float = 5.0,
        dual_warmup_epochs: int = 5,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-5),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if min(dual, dual_step, dual_warmup_epochs) < 0:
            raise InputError(
                f"PDU needs a dual, a dual_step and dual_warmup_epochs of at least 0, not {dual}, "
                f"{dual_step} and {dual_warmup_epochs}."
            )
        self.epsilon = epsilon
        self.dual_step = dual_step
        self.dual_warmup_epochs = dual_warmup_epochs
        self.register_buffer("multiplier", torch.tensor(float(dual)))
        # of this step, over the batches accumulated so far
        self.register_buffer("retain_loss", torch.tensor(0.0))

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and retain is not None
        of_forget, of_retain = predictions(self.backbone, forget, retain)
        loss = self.reduce(self.backbone.loss(retain, prediction=of_retain), retain)
        # accumulated gradients are divided by the number of batches, and so is what the dual
        # variable follows
        self.retain_loss += self.sum_over_ranks([loss.detach()])[0] / (
            self.world_size * self.trainer.accumulate_grad_batches
        )
        return {
            "forget": self.reduce(Backbone.count(forget, *self.margin(forget, of_forget)), forget),
            "retain": self.multiplier * (loss - self.epsilon),
        }

    def margin(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        """How far the logits that predict the answers are from flat, `(sum [B], weight [B])`."""
        assert isinstance(self.backbone, CausalLM)
        return logit_margin(*self.backbone.token_logits(forget, prediction))

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """The dual variable follows the constraint, once for each step."""
        super().on_before_optimizer_step(optimizer)
        if self.current_epoch >= self.dual_warmup_epochs:
            self.multiplier.add_(self.dual_step * (self.retain_loss - self.epsilon)).clamp_(min=0)
        self.retain_loss.zero_()
