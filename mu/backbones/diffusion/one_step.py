"""One-step generator, distilled from a diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mu.backbones.diffusion.base import Diffusion
from mu.backbones.diffusion.conditions import Condition
from mu.backbones.diffusion.sampler import Sampler
from mu.data.batch import Batch
from mu.utils.errors import InputError

_OF_THE_MODEL = (
    "embed",
    "encode_text",
    "labels",
    "length",
    "num_classes",
    "text_encoder",
    "texts",
    "tokenise",
    "tokenizer",
    "unet",
    "vae",
)


class OneStepGenerator(Diffusion):
    """One-step generator x̂_0(√(1 − ᾱ_τ) z, τ, c), z ~ N(0, I), at a fixed timestep τ.

    There is no guidance. All other operations are those of the underlying model, also its `loss`
    and its outputs at other noise levels.

    Args:
        model: denoiser.
        t_init: τ, in [0, T).
    """

    def __init__(self, model: Diffusion, t_init: int) -> None:
        # the noise schedule is that of the model, on its device
        nn.Module.__init__(self)
        if not 0 <= t_init < model.timesteps:
            raise InputError(
                f"t_init is {t_init}; it lies between 0 and {model.timesteps - 1}, the noisiest "
                "level of the model."
            )
        self.model = model
        self.t_init = t_init
        self.scheduler_config = model.scheduler_config
        self.prediction_type = model.prediction_type
        self.sampler = model.sampler
        self.reduction = model.reduction
        self.sample_shape = model.sample_shape
        self.condition_dropout = model.condition_dropout
        self.min_snr_gamma = model.min_snr_gamma
        self.samples_posterior = model.samples_posterior
        self.weights_metadata = model.weights_metadata

    @property
    def alphas_cumprod(self) -> Tensor:  # type: ignore[override]
        """Noise schedule ᾱ_t of the model."""
        return self.model.alphas_cumprod

    def __getattr__(self, name: str) -> Any:
        """Attributes of text-to-image or class-conditional models, from the model."""
        return getattr(self.model, name) if name in _OF_THE_MODEL else super().__getattr__(name)

    # ---- drawing ---------------------------------------------------------------------------------

    def sample(self, noise: Tensor, condition: Condition) -> Tensor:
        """Sample x̂_0 `[B, *sample_shape]` of standard normal noise, with gradient."""
        t = torch.full((len(noise),), self.t_init, dtype=torch.int64, device=noise.device)
        noised = (self.levels(t, noise)[1] * noise).to(noise.dtype)
        return self.to_sample(self.denoise(noised, t, condition), noised, t)

    @torch.no_grad()
    def generate(
        self, condition: Condition, seeds: Sequence[int], sampler: Sampler | None = None
    ) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1] by one evaluation each; the sampler is not used."""
        if len(seeds) != len(condition):
            raise InputError(f"{len(condition)} conditions need as many seeds, not {len(seeds)}.")
        return self.decode(self.sample(self.start(seeds), condition)).float()

    def generate_prompts(
        self, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler | None = None
    ) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] of prompts, for text-to-image models."""
        with torch.no_grad():
            return self.generate(self.texts(prompts), seeds)

    # ---- operations of the model -----------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the denoiser's weights."""
        return self.model.dtype

    def prepare(self, batch: Batch, seed: int) -> dict[str, Any]:
        """Operation of the model, see `Diffusion`."""
        return self.model.prepare(batch, seed)

    def condition(self, batch: Batch) -> Condition:
        """Operation of the model, see `Diffusion`."""
        return self.model.condition(batch)

    def substitute_condition(self, batch: Batch, target: Any = None) -> Condition:
        """Operation of the model, see `Diffusion`."""
        return self.model.substitute_condition(batch, target)

    def null(self, count: int) -> Condition:
        """Operation of the model, see `Diffusion`."""
        return self.model.null(count)

    def denoise(self, noised: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Operation of the model, see `Diffusion`."""
        return self.model.denoise(noised, t, condition)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Operation of the model, see `Diffusion`."""
        return self.model.encode(images, noise)

    def decode(self, latents: Tensor) -> Tensor:
        """Operation of the model, see `Diffusion`."""
        return self.model.decode(latents)
