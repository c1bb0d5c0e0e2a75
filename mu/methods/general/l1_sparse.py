"""ℓ1-sparse unlearning: fine-tune on the retain set under an ℓ1 penalty on the weights.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma and Liu, "Model Sparsity Can Simplify Machine Unlearning",
NeurIPS 2023, arXiv 2304.04934.

    min_θ ℓ(D_r) + α_e ‖θ‖₁, from θ_o
    α_e = α (1 − e / (E − E₀)) in epoch e < E − E₀, 0 afterwards; α throughout if E₀ = E

The norm is a sum, not a mean, over *all* weights, biases and batch norm included (`FT_l1` of
Unlearn-Sparse). Nothing is pruned afterwards: a subgradient method leaves hardly any weight at
exactly zero, so a count of zeros is not informative. Defaults: SGD 0.01, momentum 0.9, weight decay
5e-4, constant, 10 epochs, E₀ = 0 (README and `arg_parser.py`). The README gives no α (`--alpha
${alpha}`), and the parser's default of 0.2 belongs to other methods. The norm grows with the
network, so α must be tuned for each network; the default 1e-4 is ours. (A ResNet-8 with 20,000
weights forgot a class of digits with 1e-2 at learning rate 0.05, and nothing with 1e-4.)
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone
from mu.data.batch import Batch
from mu.functional.penalties import l1_norm, l1_sparse_weight
from mu.methods.general.finetune import FineTune
from mu.utils.errors import InputError


class L1Sparse(FineTune):
    """FineTune with a decaying ℓ1 penalty.

    Args:
        backbone: the original.
        alpha: α >= 0, the penalty's coefficient in the first epoch.
        no_l1_epochs: E₀, how many epochs at the end go without the penalty.
        optimizer: optimizer factory; for the source of the default see above.
    """

    def __init__(
        self,
        backbone: Backbone,
        alpha: float = 1e-4,
        no_l1_epochs: int = 0,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.01, momentum=0.9, weight_decay=5e-4
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        if alpha < 0:
            raise InputError(f"alpha is {alpha}; a negative penalty would make the weights grow.")
        self.alpha = alpha
        self.no_l1_epochs = no_l1_epochs

    def setup(self, stage: str) -> None:
        """The penalty's schedule needs a run of known length."""
        super().setup(stage)
        if stage == "fit":
            self.penalty_weight(0)

    def penalty_weight(self, epoch: int) -> float:
        """α_e."""
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise InputError(
                "the l1 penalty falls over the run's epochs, so the run needs a number of them; "
                "set trainer.max_epochs."
            )
        return l1_sparse_weight(epoch, epochs, self.no_l1_epochs, self.alpha)

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        terms = super().objective(forget, retain)
        weight = self.penalty_weight(self.current_epoch)
        if weight > 0:
            terms["l1"] = weight * l1_norm(p for _, p in self.trainable())
        return terms
