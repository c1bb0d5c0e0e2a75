"""A distilled generator: one evaluation of the denoiser draws an image."""

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
    """Draws x̂_0(√(1 − ᾱ_τ) z, τ, c), z ~ N(0, I), at one fixed timestep τ, without guidance. What
    else it is asked, its model answers.

    As a denoiser at other noise levels it means little: its `loss` is that of the network that it
    is made of.

    Args:
        model: the denoiser.
        t_init: τ, in [0, T).
    """

    def __init__(self, model: Diffusion, t_init: int) -> None:
        # the noise schedule is the model's own, on whatever device that is
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
        """The model's."""
        return self.model.alphas_cumprod

    def __getattr__(self, name: str) -> Any:
        """What only text-to-image or only class-conditional models know, the model answers."""
        return getattr(self.model, name) if name in _OF_THE_MODEL else super().__getattr__(name)

    # ---- drawing ---------------------------------------------------------------------------------

    def sample(self, noise: Tensor, condition: Condition) -> Tensor:
        """x̂_0 `[B, *sample_shape]` of standard normal noise, with gradient: one evaluation a
        sample.
        """
        t = torch.full((len(noise),), self.t_init, dtype=torch.int64, device=noise.device)
        noised = self.levels(t, noise)[1] * noise
        return self.to_sample(self.denoise(noised, t, condition), noised, t)

    @torch.no_grad()
    def generate(
        self, condition: Condition, seeds: Sequence[int], sampler: Sampler | None = None
    ) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1] by one evaluation each; a sampler changes nothing."""
        if len(seeds) != len(condition):
            raise InputError(f"{len(condition)} conditions need as many seeds, not {len(seeds)}.")
        return self.decode(self.sample(self.start(seeds), condition)).float()

    def generate_prompts(
        self, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler | None = None
    ) -> Tensor:
        """Images of prompts, where the model is text-to-image."""
        with torch.no_grad():
            return self.generate(self.texts(prompts), seeds)

    # ---- as the model does -----------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """Of the denoiser's weights."""
        return self.model.dtype

    def prepare(self, batch: Batch, seed: int) -> dict[str, Any]:
        """As the model."""
        return self.model.prepare(batch, seed)

    def condition(self, batch: Batch) -> Condition:
        """As the model."""
        return self.model.condition(batch)

    def substitute_condition(self, batch: Batch, target: Any = None) -> Condition:
        """As the model."""
        return self.model.substitute_condition(batch, target)

    def null(self, count: int) -> Condition:
        """As the model."""
        return self.model.null(count)

    def denoise(self, noised: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """As the model."""
        return self.model.denoise(noised, t, condition)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """As the model."""
        return self.model.encode(images, noise)

    def decode(self, latents: Tensor) -> Tensor:
        """As the model."""
        return self.model.decode(latents)
