"""Baselines of SCRUB's small-scale notebook: eval mode, and a pull to the original weights.

Kurmanji et al., "Towards Unbounded Machine Unlearning", NeurIPS 2023, arXiv 2302.09880; code
`small_scale_unlearning.ipynb` (`run_train_epoch`, `run_neggrad_epoch`, `l2_penalty`).

    fine-tuning:  min_θ ℓ(D_r) + w/2 ‖θ − θ_o‖²
    NegGrad+:     min_θ a (ℓ(D_r) + w/2 ‖θ − θ_o‖²) − (1 − a) ℓ(D_f)

The optimizer itself decays nothing; w is the weight decay that the original was trained with, 0.1
there.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Backbone
from mu.core.batch_norm import Norm
from mu.core.module import UnlearningModule
from mu.core.sharding import reshard
from mu.data.batch import Batch
from mu.methods.general.finetune import FineTune
from mu.methods.general.neggrad_plus import NegGradPlus
from mu.utils.sharded import total_of


def pull(module: UnlearningModule, weight: float) -> Tensor:
    """w/2 ‖θ − θ_o‖² over the trainable weights."""
    assert module.reference is not None
    reshard(module.reference)
    original = dict(module.reference.named_parameters())
    squares = [total_of((p - original[name]).square().sum()) for name, p in module.trainable()]
    return weight / 2 * torch.stack(squares).sum()


class FineTunePulled(FineTune):
    """FineTune with the pull.

    Args:
        backbone: the original.
        pull_weight: w >= 0.
        optimizer: SGD 0.01 and nothing else.
        norm: see UnlearningModule.
    """

    needs_reference = True

    def __init__(
        self,
        backbone: Backbone,
        pull_weight: float = 0.1,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(params, lr=0.01),
        norm: Norm = "eval",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, norm=norm, **kwargs)
        self.pull_weight = pull_weight

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        return {**super().objective(forget, retain), "pull": pull(self, self.pull_weight)}


class NegGradPlusPulled(NegGradPlus):
    """NegGradPlus with the pull.

    Args:
        backbone: the original.
        pull_weight: w >= 0.
        norm: see UnlearningModule.
    """

    needs_reference = True

    def __init__(
        self, backbone: Backbone, pull_weight: float = 0.1, norm: Norm = "eval", **kwargs: Any
    ) -> None:
        super().__init__(backbone, norm=norm, **kwargs)
        self.pull_weight = pull_weight

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        return {
            **super().objective(forget, retain),
            "pull": self.retain_weight * pull(self, self.pull_weight),
        }
