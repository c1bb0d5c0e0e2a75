"""Methods that distil a diffusion model's score into a second network and a generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.backbones import Condition, Diffusion, TextToImage
from mu.data.batch import Batch
from mu.methods.bases.alternating_models import AlternatingModelsMethod
from mu.methods.bases.diffusion import DiffusionMethod
from mu.utils import rng
from mu.utils.errors import InputError

WeightedParts = list[tuple[str, Batch, float]]
"""The parts of a step whose term has a weight: name, part, weight."""


class ScoreDistillationMethod(AlternatingModelsMethod, DiffusionMethod):
    """Two diffusion networks in every step, with conditions, guidance and noise for several parts.

    A frozen text encoder is shared by all networks; a trained one belongs to its network.

    Args:
        backbone: the original.
        auxiliary_optimizer: see AlternatingModelsMethod.
        average: see AlternatingModelsMethod.
        clip: see AlternatingModelsMethod.
        negative_prompt: replaces the empty prompt in all guidance (text-to-image).
    """

    def __init__(
        self,
        backbone: Diffusion,
        auxiliary_optimizer: OptimizerCallable,
        average: float | None = None,
        clip: float | None = None,
        negative_prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, auxiliary_optimizer, average, clip, **kwargs)
        if negative_prompt is not None and not isinstance(backbone, TextToImage):
            raise InputError(
                "a negative prompt means nothing to a class-conditional model; leave it out."
            )
        self.negative_prompt = negative_prompt
        self.trains_text_encoder = any(
            name.startswith("text_encoder.") for name, _ in self.trainable()
        )

    @staticmethod
    def weighted_parts(
        forget: Batch | None, retain: Batch | None, weights: Mapping[str, float]
    ) -> WeightedParts:
        """Retain and forget part, where they are in the step and have a weight.

        Example:
            >>> ScoreDistillationMethod.weighted_parts(
            ...     {"index": 0}, None, {"forget": 0.5, "retain": 1.0}
            ... )
            [('forget', {'index': 0}, 0.5)]
        """
        pairs = {"retain": retain, "forget": forget}
        return [
            (name, part, weights[name])
            for name, part in pairs.items()
            if part is not None and weights[name]
        ]

    def condition_encoder(self, network: Diffusion) -> Any:
        """The model that encodes the conditions of a network."""
        return network if self.trains_text_encoder else self.denoiser

    def conditions(
        self, network: Diffusion, parts: WeightedParts, override: Batch | None = None
    ) -> Condition:
        """Conditions of all parts for a network; those of the part `override` are substitutes."""
        encoder = self.condition_encoder(network)
        return Condition.cat(
            [
                encoder.substitute_condition(part) if part is override else encoder.condition(part)
                for _, part, _ in parts
            ]
        )

    def null(self, network: Diffusion, count: int) -> Condition:
        """The null condition of guidance, or that of the negative prompt, for `count` samples."""
        encoder = self.condition_encoder(network)
        if self.negative_prompt is None:
            return encoder.null(count)
        return encoder.texts([self.negative_prompt]).repeat(count)

    def guided(
        self, network: Diffusion, noised: Tensor, t: Tensor, condition: Condition, scale: float
    ) -> Tensor:
        """A network's output under guidance of this scale (1 is none), `[B, C, H, W]`."""
        null = self.null(network, len(condition)) if scale != 1 else None
        return network.guided(noised, t, condition, scale, null)

    def noise(self, part: Batch, stream: str) -> Tensor:
        """Gaussian noise `[B, C, H, W]` for the samples of a part, keyed by `stream`."""
        shape = self.denoiser.sample_shape
        noise = rng.normal(self.seed, part["index"], part["visit"], stream, *shape)
        return noise.to(self.denoiser.dtype)

    def part_terms(self, prefix: str, parts: WeightedParts, values: Tensor) -> dict[str, Tensor]:
        """Weighted mean of each part's values.

        Args:
            prefix: of the terms' names.
            parts: whose samples lie one after the other in `values`.
            values: `[B]`, one loss a sample.
        """
        splits = values.split([len(part["index"]) for _, part, _ in parts])
        return {
            prefix + name: weight * self.mean(part_values, part)
            for (name, part, weight), part_values in zip(parts, splits, strict=True)
        }
