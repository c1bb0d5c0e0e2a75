"""SalUn for image generation: the concept is denoised as something else, on the salient weights
only.

Fan, Liu, Zhang, Wong, Wei and Liu, "SalUn: Empowering Machine Unlearning via Gradient-based Weight
Saliency in Both Image Classification and Generation", ICLR 2024, arXiv 2310.12508.

    min_θ ‖ε_θ(x_t, t, c) − sg ε_θ(x_t, t, c')‖² + α ℓ(θ; D_r),    x ∈ D_f,    c' ≠ c;    weights outside of the saliency mask stay

c' is a random other class, or for text the task's substitute prompt. The target is the *current*
model's. Mask: the largest |Σ_b ∇ℓ_b(D_f)| of the denoising loss of the *guided* prediction
(`GuidedSaliency`). Released code: c' is the next class (`NextLabel`); each mask batch's gradient is
clipped to norm 1; gradients are clipped, then masked: preset `salun_ddpm_reference_code`. It
averages L_f over the elements of a sample but adds up L_r, so that its α = 1e-3 is 3,072 times as
large per element on CIFAR-10. Here both terms are reduced alike (the backbone's `reduction`), and α
weighs them as such. Its t are antithetic within a batch, target and output have condition dropout
of their own each, and its SD variant encodes x twice (two draws of the image encoder's posterior);
none of these is done here. Defaults: α = 1e-3 × 3,072 = 3.072 (README, CIFAR-10 DDPM; Stable
Diffusion: 0.5, both of means); half of the weights, guidance s = 3 of the mask (w = 2; SD: 8.5);
Adam 1e-4, 1000 steps, batch 128, clip 1, condition dropout 0.1 (SD: Adam 1e-5, 5 epochs of D_f,
batch 8, no clip).
"""

from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import ClassConditionalDiffusion, Diffusion
from mu.core.gradients.summed import gradient_of
from mu.core.masks import WeightMask
from mu.core.module import UnlearningModule
from mu.core.substitutes import Substitute
from mu.data.batch import Batch
from mu.data.plan import DataPlan, Forget, Paired
from mu.functional.selection import global_top_mask
from mu.methods.bases.diffusion import DiffusionMethod
from mu.methods.components.latents import diffusion_backbone
from mu.methods.components.masks import Saliency
from mu.methods.components.substitutes import GivenByTask, UniformLabel
from mu.methods.general.salun import SalUn
from mu.utils.errors import InputError
from mu.utils.modules import eval_mode


class SalUnDiffusion(DiffusionMethod, SalUn):
    """Substitute loss on forget plus α times the denoising loss on retain, in the same step, under
    a saliency mask.

    Args:
        backbone: the original.
        alpha: α >= 0, weight of the retain loss.
        optimizer: see the file's head.
        substitute: the law of c'; None is a random other class for class-conditional models, and
            what the task gives for text.
        plan: `Paired(length="forget")` when None: an epoch shows the forget part once.
        mask: `GuidedSaliency()` when None.
    """

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


class GuidedSaliency(Saliency):
    """Gradient saliency of the guided prediction's denoising loss: o_∅ + s (o_c − o_∅) in place of
    o_c.

    Args:
        guidance: s; 1 is `Saliency`. (The DDPM code family writes w = s − 1.)
        max_norm: clip each batch's gradient to this norm before it is added (the released DDPM
            code: 1 for a loss that is added up over the elements of a sample, 1 / 3,072 for its
            mean on CIFAR-10); None does not clip.
        keep: see Saliency.
        batch_size: see Saliency.
        augment: see Saliency.
        enforce: see WeightMask.
        clip: see WeightMask.
    """

    def __init__(
        self,
        guidance: float = 3.0,
        max_norm: float | None = None,
        keep: float = 0.5,
        batch_size: int | None = None,
        augment: bool = True,
        enforce: Literal["hard", "gradient"] = "hard",
        clip: Literal["mask_then_clip", "clip_then_mask"] = "mask_then_clip",
    ) -> None:
        super().__init__(keep, batch_size, augment, enforce, clip)
        if max_norm is not None and not max_norm > 0:
            raise InputError(
                f"max_norm is {max_norm}; a gradient is clipped to a norm greater than 0, or not "
                "at all (null)."
            )
        self.guidance = guidance
        self.max_norm = max_norm

    def choose(self, module: UnlearningModule) -> dict[str, Tensor]:
        """The globally largest saliencies, in eval mode at the original weights."""
        gradient = self.saliency(module)
        named = zip([name for name, _ in module.trainable()], gradient, strict=True)
        return global_top_mask({name: value.abs() for name, value in named}, self.keep)

    def saliency(self, module: UnlearningModule) -> list[Tensor]:
        """Σ_b ∇ℓ_b over all batches and ranks, signed, one tensor for each trainable weight."""
        total = [torch.zeros_like(p) for _, p in module.trainable()]
        iterate_batches = module.iterate_batches(
            Forget(), augment=self.augment, batch_size=self.batch_size
        )
        with eval_mode(module.backbone), torch.enable_grad(), module.precision():
            for batch in iterate_batches:
                gradient = gradient_of(
                    module, self.loss(module, batch["forget"]) / module.world_size
                )
                if self.max_norm is not None:
                    gradient = module.sum_over_ranks(gradient)  # the norm is the whole batch's
                    norm = torch.stack(torch._foreach_norm(gradient)).norm()
                    torch._foreach_mul_(gradient, (self.max_norm / norm).clamp_max(1))
                torch._foreach_add_(total, gradient)
        return total if self.max_norm is not None else module.sum_over_ranks(total)

    def loss(self, module: UnlearningModule, part: Batch) -> Tensor:
        """Mean denoising loss of the guided prediction."""
        model = diffusion_backbone(module)
        output = model.guided(model.noised(part), part["t"], model.condition(part), self.guidance)
        return module.reduce(model.loss(part, prediction=output), part)
