"""SalUn for image generation: substitute predictions for the concept, on the salient weights only.

Fan, Liu, Zhang, Wong, Wei and Liu, "SalUn: Empowering Machine Unlearning via Gradient-based Weight
Saliency in Both Image Classification and Generation", ICLR 2024, arXiv 2310.12508.

    min_θ ‖ε_θ(x_t, t, c) − sg ε_θ(x_t, t, c')‖² + α ℓ(θ; D_r),    x ∈ D_f,    c' ≠ c
    weights outside of the saliency mask stay

c' is a random other class, or for text the task's substitute prompt. The target is the *current*
model's. Mask: the largest |Σ_b ∇ℓ_b(D_f)| of the denoising loss of the *guided* prediction
(`GuidedSaliency`). Released code: c' is the next class (`NextLabel`); each mask batch's gradient is
clipped to norm 1; gradients are clipped, then masked: preset `salun_ddpm_reference_code`. It
averages L_f over the elements of a sample but adds up L_r, so that its α = 1e-3 is 3,072 times as
large per element on CIFAR-10. Here both terms have the same reduction (the backbone's `reduction`),
and α weighs them as such. Its t are antithetic within a batch, target and output each have their
own condition dropout, and its SD variant encodes x twice (two draws of the image encoder's
posterior); none of these is reproduced. Defaults: α = 1e-3 × 3,072 = 3.072 (README, CIFAR-10 DDPM;
Stable Diffusion: 0.5, both of means); half of the weights, guidance s = 3 of the mask (w = 2; SD:
8.5); Adam 1e-4, 1000 steps, batch 128, clip 1, condition dropout 0.1 (SD: Adam 1e-5, 5 epochs of
D_f, batch 8, no clip).
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import ClassConditionalDiffusion, Diffusion
from mu.core.masks import WeightMask
from mu.core.substitutes import Substitute
from mu.data.batch import Batch
from mu.data.plan import DataPlan, Paired
from mu.methods.bases.diffusion import DiffusionMethod
from mu.methods.components.guided_saliency import GuidedSaliency
from mu.methods.components.substitutes import GivenByTask, UniformLabel
from mu.methods.general.salun import SalUn
from mu.utils.errors import InputError


class SalUnDiffusion(DiffusionMethod, SalUn):
    """Substitute loss on forget plus α times the denoising loss on retain, under a saliency mask.

    Args:
        backbone: the original.
        alpha: α >= 0, weight of the retain loss.
        optimizer: optimizer factory; for the source of the default see above.
        substitute: draws c'; None is a random other class for class-conditional models, and the
            task's substitute prompt for text.
        plan: `Paired(length="forget")` when None: one pass over the forget part in an epoch.
        mask: `GuidedSaliency()` when None.
    """

    default_epochs = 5

    def __init__(
        self,
        backbone: Diffusion,
        alpha: float = 3.072,
        optimizer: OptimizerCallable = lambda params: torch.optim.Adam(params, lr=1e-4),
        substitute: Substitute | None = None,
        plan: DataPlan | None = None,
        mask: WeightMask | None = None,
        **kwargs: Any,
    ) -> None:
        if substitute is None:
            substitute = (
                UniformLabel(exclude_true=True)
                if isinstance(backbone, ClassConditionalDiffusion)
                else GivenByTask()
            )
        super().__init__(
            backbone,
            optimizer=optimizer,
            substitute=substitute,
            mask=GuidedSaliency() if mask is None else mask,
            plan=Paired(length="forget") if plan is None else plan,
            **kwargs,
        )
        if alpha < 0:
            raise InputError(
                f"alpha is {alpha}; a negative weight would train the retain part away."
            )
        self.alpha = alpha

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        terms = super().objective(forget, retain)
        return {
            name: self.alpha * value if name == "retain" else value for name, value in terms.items()
        }
