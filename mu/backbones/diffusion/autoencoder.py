"""Backbone of the image autoencoder of a latent diffusion model, to train it with any method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from mu.backbones.base import Backbone, WeightedSum, select_outputs
from mu.data.batch import Batch
from mu.utils import rng
from mu.utils.pretrained import load_pretrained
from mu.utils.spec import init_args_of


class Autoencoder(Backbone):
    """Variational autoencoder of images: AutoencoderKL of diffusers.

    The loss of a sample is the mean squared error of its pixels in [-1, 1] plus `kl_weight` times
    the divergence of its latents from the standard normal distribution, per latent element (Kingma
    and Welling, 2014, with a small weight as in Rombach et al., CVPR 2022; without their perceptual
    and adversarial terms).

    Samples have `image` `[B, 3, H, W]` in [0, 1].

    Args:
        model: folder of a diffusers pipeline, whose `vae` is taken.
        kl_weight: weight of the divergence.
        weights: a run folder, a checkpoint or a safetensors file.
        init_seed: begin with new weights from this seed.
    """

    def __init__(
        self,
        model: str,
        kl_weight: float = 1e-3,
        weights: str | None = None,
        init_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.vae: nn.Module = _load(model, init_seed)
        self.kl_weight = kl_weight
        if weights is not None:
            from mu.utils.weights import assign_weights, load_weights

            assign_weights(self, load_weights(weights)[0], weights)

    def fresh(self, seed: int) -> Self:
        """New model of the same architecture."""
        twin = type(self)(**{**init_args_of(self), "weights": None, "init_seed": seed})
        return twin.to(next(self.parameters()).device).train(self.training)

    def prepare(self, batch: Batch, seed: int) -> dict[str, Any]:
        """Batch with the noise of the latents, keyed by (seed, index, visit) of each sample."""
        config: Any = self.vae.config
        side = [
            size // 2 ** (len(config.block_out_channels) - 1) for size in batch["image"].shape[2:]
        ]
        return {
            **batch,
            "noise": rng.normal(
                seed, batch["index"], batch["visit"], "posterior", config.latent_channels, *side
            ),
        }

    def predict(self, batch: Batch) -> Tensor:
        """Reconstructed images `[B, 3, H, W]` in [-1, 1], from sampled latents or their means.

        Latents are sampled in train mode where the batch has `noise`.
        """
        return self._pass(batch)[0]

    def _pass(self, batch: Batch) -> tuple[Tensor, Tensor]:
        vae: Any = self.vae
        posterior = vae.encode(batch["image"] * 2 - 1).latent_dist
        latent = (
            posterior.mean + posterior.std * batch["noise"]
            if "noise" in batch and self.training
            else posterior.mean
        )
        divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).flatten(
            1
        ).mean(1)
        return vae.decode(latent, return_dict=False)[0], divergence

    def loss(self, batch: Batch, prediction: Tensor | None = None) -> WeightedSum:
        """Squared error plus weighted divergence; always computed by a new forward pass."""
        again, divergence = self._pass(batch)
        return self.count(
            batch, self._error(again, batch["image"] * 2 - 1) + self.kl_weight * divergence
        )

    @staticmethod
    def _error(image: Tensor, target: Tensor) -> Tensor:
        return (image - target).square().flatten(1).mean(1)

    def divergence(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float = 1.0
    ) -> WeightedSum:
        """Squared error between two images; the temperature is not used."""
        return self.count(batch, self._error(student, teacher))

    def substitute_loss(
        self, batch: Batch, target: Tensor | None = None, prediction: Tensor | None = None
    ) -> WeightedSum:
        """Squared error to another image, in [-1, 1]."""
        again = self.predict(batch) if prediction is None else prediction
        return self.count(
            batch, self._error(again, batch["substitute"] if target is None else target)
        )

    def outputs(
        self, batch: Batch, names: Iterable[str], prediction: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Outputs: `nll` [B], the loss, a surrogate of the likelihood bound."""
        return select_outputs({"nll": lambda: self.loss(batch)[0].float()}, names, "an autoencoder")

    def scores(self, batch: Batch, prediction: Tensor | None = None) -> dict[str, Tensor]:
        """Scores: `error`, the squared error of the pixels."""
        again = self.predict(batch) if prediction is None else prediction
        return {"error": self._error(again, batch["image"] * 2 - 1).float()}


def _load(model: str, init_seed: int | None) -> nn.Module:
    from diffusers import AutoencoderKL  # type: ignore[attr-defined]

    vae: Any = load_pretrained(
        AutoencoderKL, model, "the autoencoder", subfolder="vae", torch_dtype=torch.float32
    )
    if init_seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(init_seed)
            vae = type(vae).from_config(vae.config)
    return vae
