"""Prune first, then unlearn: magnitude pruning as a weight mask for any method.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma and Liu, "Model Sparsity Can Simplify Machine Unlearning",
NeurIPS 2023, arXiv 2304.04934.

    m = the largest (1 − rate) n of |θ| over all convolutions together
    θ_u = m ⊙ U(m ⊙ θ, D_f, D_r) for any method U

`Pruned` is a weight mask, so it works with any method: `mask: {class_path: mu.methods.Pruned}`.
Pruned weights are set to zero before the first step and held there, which is the same as the code's
forward reparametrisation `weight_orig * mask`. Linear layers, biases and batch norm are left alone,
as in the code. `PruneFineTune` is the pair that the paper stresses: fine-tuning on the pruned
model.

What is *not* done in one run: the paper's models were trained dense, pruned once (OMP), rewound to
the weights of epoch 8 and trained again before any unlearning. `PruneFineTune` on a dense original
prunes and fine-tunes at once, without that training in between, and loses accuracy that the paper's
protocol keeps. The paper's protocol is two runs and then the unlearning run:
  1. `Train`, dense, keeping the checkpoint of epoch 8 and the last; 2. `Train` from the epoch-8
  weights with `mask=Pruned(0.95, weights=<last checkpoint>)`: this is the original; 3. any method
  from those weights with `mask=Pruned(0.95)`, which finds the same zeros again.
Iterative magnitude pruning repeats 2 with rate 1 − 0.8^round. `Retrain(mask=Pruned(0.95,
weights=<last checkpoint>))` is the code's sparse oracle; its mask has seen the forget set, so it is
not strictly exact. Defaults: rate 0.95 (CIFAR-10, ResNet-18); fine-tuning as in `FineTune`.
"""

from copy import deepcopy
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from mu.backbones import Backbone
from mu.core.masks import WeightMask
from mu.core.module import UnlearningModule
from mu.functional.selection import magnitude_prune_mask
from mu.methods.general.finetune import FineTune
from mu.utils.errors import InputError


class Pruned(WeightMask):
    """Global unstructured magnitude pruning: pruned weights are zero throughout the run.

    Args:
        rate: share of the weights that is pruned, in [0, 1).
        weights: file, checkpoint or run folder whose magnitudes decide; None takes the backbone's
            own. A model that is already sparse gives the same mask again, because its zeros are its
            smallest weights.
        scope: `conv` prunes two-dimensional convolutions, as the paper does; `conv_linear` linear
            layers too (a transformer or a perceptron has hardly a convolution).
        clip: see WeightMask.
    """

    def __init__(
        self,
        rate: float = 0.95,
        weights: str | None = None,
        scope: Literal["conv", "conv_linear"] = "conv",
        clip: Literal["mask_then_clip", "clip_then_mask"] = "mask_then_clip",
    ) -> None:
        super().__init__("hard", clip)
        if not 0 <= rate < 1:
            raise InputError(f"rate is {rate}; the share of weights that is pruned lies in [0, 1).")
        self.rate = rate
        self.weights = weights
        self.scope = scope

    @torch.no_grad()
    def choose(self, module: "UnlearningModule") -> dict[str, Tensor]:
        """Compute the mask and set pruned weights to zero, as which the base restores them."""
        prunable = self._prunable(module.backbone)
        masks = magnitude_prune_mask(self._magnitudes(module.backbone, prunable), self.rate)
        # a weight that the method has frozen is pruned as well, though no mask covers it
        for name, weight in prunable.items():
            weight.mul_(masks[name].to(weight.device))
        return {
            name: masks[name] if name in masks else torch.ones_like(p, dtype=torch.bool)
            for name, p in module.trainable()
        }

    def _prunable(self, backbone: Backbone) -> dict[str, Tensor]:
        types = nn.Conv2d if self.scope == "conv" else (nn.Conv2d, nn.Linear)
        weights = {
            f"{name}.weight": layer.weight
            for name, layer in backbone.named_modules()
            if isinstance(layer, types)
        }
        if not weights:
            raise InputError(
                f"{type(backbone).__name__} has no two-dimensional convolution to prune; set "
                "scope to conv_linear."
            )
        return weights

    def _magnitudes(self, backbone: Backbone, prunable: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.weights is None:
            return prunable
        from mu.utils.weights import assign_weights, load_weights

        source: Any = deepcopy(backbone)
        assign_weights(source.network, load_weights(self.weights)[0], self.weights)
        return self._prunable(source)


class PruneFineTune(FineTune):
    """FineTune under a pruning mask.

    Args:
        backbone: the original, dense or already sparse.
        optimizer: see `FineTune`.
        mask: `Pruned(rate)`.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.01, momentum=0.9, weight_decay=5e-4
        ),
        mask: WeightMask | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone, optimizer=optimizer, mask=Pruned() if mask is None else mask, **kwargs
        )
