"""Samplers that draw images from a diffusion model by a scheduler of diffusers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mu.backbones.diffusion.conditions import Condition
from mu.backbones.diffusion.schedulers import make_scheduler
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible


class Denoiser(Protocol):
    """Operations of a diffusion model that a sampler calls; `Diffusion` documents them."""

    prediction_type: str
    scheduler_config: dict[str, Any]
    scheduler_overrides: Mapping[str, Any]
    alphas_cumprod: Tensor

    def start(self, seeds: Sequence[int | torch.Generator]) -> Tensor: ...

    def null(self, count: int) -> Condition: ...

    def guided(
        self,
        noised: Tensor,
        t: Tensor,
        condition: Condition,
        scale: float,
        null: Condition | None = None,
    ) -> Tensor: ...


class Sampler(Reconstructible):
    """Sampler of images by a scheduler of diffusers.

    Args:
        scheduler: name of a scheduler class of diffusers (`DDIMScheduler`, `LMSDiscreteScheduler`,
            `DDPMScheduler`...).
        num_inference_steps: number of denoising steps.
        guidance_scale: scale s of classifier-free guidance, ε_∅ + s (ε_c − ε_∅); 1 is the
            conditional prediction alone. (The DDPM code family writes w = s − 1.)
        eta: share of ancestral noise, for schedulers that have it (DDIM).
        options: further settings of the scheduler, over the model's own (`{timestep_spacing:
            trailing}`).
    """

    def __init__(
        self,
        scheduler: str = "DDIMScheduler",
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        eta: float = 0.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        if num_inference_steps < 1:
            raise InputError(
                f"a sampler of {num_inference_steps} steps draws nothing; give at least 1."
            )
        self.scheduler = scheduler
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.eta = eta
        self.options = dict(options or {})

    def make(self, backbone: Denoiser) -> Any:
        """Scheduler of diffusers set to `num_inference_steps` timesteps.

        Raises:
            InputError: when diffusers has no such scheduler, or it does not fit the model.
        """
        scheduler = make_scheduler(
            self.scheduler,
            {**backbone.scheduler_config, "prediction_type": backbone.prediction_type},
            self.options,
            backbone.scheduler_overrides,
        )
        try:
            scheduler.set_timesteps(self.num_inference_steps, device=backbone.alphas_cumprod.device)
        except ValueError as error:
            raise InputError(
                f"the scheduler {self.scheduler} cannot take {self.num_inference_steps} steps: "
                f"{error}"
            ) from error
        return scheduler

    @torch.no_grad()
    def draw(self, backbone: Denoiser, condition: Condition, seeds: Sequence[int]) -> Tensor:
        """Latents `[B, *sample_shape]`; sample i depends on condition i and seed i only.

        Args:
            backbone: model, called in its current mode.
            condition: B conditions.
            seeds: B seeds, one for each generator on the CPU, which draws the initial noise and
                then any noise of the steps, as in diffusers' pipelines.
        """
        scheduler = self.make(backbone)
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        latent = backbone.start(generators) * scheduler.init_noise_sigma
        null = backbone.null(len(condition)) if self.guidance_scale != 1 else None
        extra = _extra(scheduler, self.eta, generators)
        for t in scheduler.timesteps:
            noised = scheduler.scale_model_input(latent, t)
            steps = t.to(latent.device).expand(len(condition))
            output = backbone.guided(noised, steps, condition, self.guidance_scale, null)
            latent = scheduler.step(output, t, latent, return_dict=False, **extra)[0].to(
                latent.dtype
            )
        return latent

    def describe(self) -> str:
        """Description for reports: `DDIM, 20 steps, guidance 2`."""
        scheduler = self.scheduler.removesuffix("Scheduler")
        return f"{scheduler}, {self.num_inference_steps} steps, guidance {self.guidance_scale:g}"


def _extra(scheduler: Any, eta: float, generators: list[torch.Generator]) -> dict[str, Any]:
    """Further arguments of the scheduler's step: eta and the generators, where it has them."""
    accepted = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {"eta": eta, "generator": generators}
    return {name: value for name, value in extra.items() if name in accepted}
