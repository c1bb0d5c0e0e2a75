"""SalUn: random labels on the salient weights only.

Fan, Liu, Zhang, Wong, Wei and Liu, "SalUn: Empowering Machine Unlearning via Gradient-based Weight
Saliency in Both Image Classification and Generation", ICLR 2024, arXiv 2310.12508.

    m = 1[ |∇_θ ℓ(D_f; θ_o)| among the largest ρ·n ]
    θ_u = m ⊙ (θ_o + Δθ) + (1 − m) ⊙ θ_o,    Δθ by the random-label objective

Defaults: ρ = 0.5; SGD 0.013, momentum 0.9, weight decay 5e-4, constant, 10 epochs, batch 256
(README, CIFAR-10 ResNet-18, 10 %). The code before February 2026, which made the published numbers,
masked only the gradient, so that weight decay shrank masked-out weights:
`mask=Saliency(enforce="gradient")`, preset `reference-code`.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable

from mu.backbones import Backbone
from mu.core.masks import WeightMask
from mu.methods.components.masks import Saliency
from mu.methods.general.random_label import RandomLabel


class SalUn(RandomLabel):
    """RandomLabel under a saliency mask.

    Args:
        backbone: the original.
        optimizer: optimizer factory; for the source of the default see above.
        mask: the saliency mask; `Saliency(keep=ρ)`.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.013, momentum=0.9, weight_decay=5e-4
        ),
        mask: WeightMask | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone, optimizer=optimizer, mask=Saliency() if mask is None else mask, **kwargs
        )
