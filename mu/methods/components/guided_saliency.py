"""Weight mask by gradient saliency of a diffusion model's guided prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mu.core.gradients.summed import accumulate, gradient_of
from mu.core.protocols import Method
from mu.data.batch import Batch
from mu.data.plan import Forget
from mu.functional.selection import global_top_mask
from mu.methods.components.latents import diffusion_backbone
from mu.methods.components.masks import Saliency
from mu.utils.errors import InputError


class GuidedSaliency(Saliency):
    """Gradient saliency of the denoising loss of the guided prediction o_∅ + s (o_c − o_∅).

    Source: the code of SalUn (Fan et al., ICLR 2024, arXiv 2310.12508) for image generation.

    Args:
        guidance_scale: s; 1 is `Saliency`. (The DDPM code family writes w = s − 1.)
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
        guidance_scale: float = 3.0,
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
        self.guidance_scale = guidance_scale
        self.max_norm = max_norm

    def choose(self, module: Method) -> dict[str, Tensor]:
        """The globally largest saliencies, in eval mode at the original weights."""
        names = [name for name, _ in module.trainable()]
        gradients = zip(names, self.saliency(module), strict=True)
        return global_top_mask({name: value.abs() for name, value in gradients}, self.keep)

    def saliency(self, module: Method) -> list[Tensor]:
        """Σ_b ∇ℓ_b over all batches and ranks, signed, one tensor for each trainable weight."""

        def batch_gradient(batch: Mapping[str, Any]) -> list[Tensor]:
            gradient = gradient_of(module, self.loss(module, batch["forget"]) / module.world_size)
            if self.max_norm is not None:
                # the clipped norm is that of the whole batch, over all ranks
                gradient = module.sum_over_ranks(gradient)
                norm = torch.stack(torch._foreach_norm(gradient)).norm()
                torch._foreach_mul_(gradient, (self.max_norm / norm).clamp_max(1))
            return gradient

        batches = module.iterate_batches(Forget(), augment=self.augment, batch_size=self.batch_size)
        sums = accumulate(module, batches, batch_gradient)
        return sums.local(module) if self.max_norm is not None else sums.total(module)

    def loss(self, module: Method, part: Batch) -> Tensor:
        """Mean denoising loss of the guided prediction."""
        model = diffusion_backbone(module)
        output = model.guided(
            model.noised(part), part["t"], model.condition(part), self.guidance_scale
        )
        return module.reduce(model.loss(part, prediction=output), part)
