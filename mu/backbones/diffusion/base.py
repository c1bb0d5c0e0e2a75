"""Base class of diffusion models: noise schedule, parametrisations, guidance, loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from mu import functional
from mu.backbones.base import Backbone, WeightedSum, select_outputs
from mu.backbones.diffusion.conditions import Condition
from mu.backbones.diffusion.sampler import Sampler
from mu.data.batch import Batch
from mu.utils import rng
from mu.utils.errors import InputError

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class Diffusion(Backbone):
    """Base of diffusion models, a denoiser with a noise schedule: x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε.

    Subclasses define conditions and the encoding of pixels as latents. Every loss is the squared
    error of the network's own output (ε, v or x_0, `prediction_type`), and weighs 1 a sample.

    Args:
        scheduler_config: settings of a diffusers scheduler, as from `scheduler_settings`:
            `num_train_timesteps`, the betas, `prediction_type`.
        sampler: sampler of images; None takes DDIM with 50 steps and guidance 7.5.
        reduction: the squared error is averaged over the elements of a sample (`mean`) or added up
            (`sum`, the DDPM code family).
        condition_dropout: share of training samples whose condition is replaced by the null
            condition.
        min_snr_gamma: weight of the training loss by min(SNR, γ) (Hang et al., ICCV 2023, arXiv
            2303.09556); None weighs all t alike.
    """

    alphas_cumprod: Tensor
    sample_shape: tuple[int, ...]
    scheduler_overrides: Mapping[str, Any] = {}
    """Settings of every sampler's scheduler that the pipeline of diffusers fixes."""

    def __init__(
        self,
        scheduler_config: Mapping[str, Any],
        sampler: Sampler | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        condition_dropout: float = 0.0,
        min_snr_gamma: float | None = None,
    ) -> None:
        super().__init__()
        from diffusers import DDPMScheduler

        self.scheduler_config = dict(scheduler_config)
        schedule: Any = DDPMScheduler.from_config(self.scheduler_config)
        self.prediction_type = str(schedule.config["prediction_type"])
        if self.prediction_type not in PREDICTIONS:
            raise InputError(
                f"the model predicts {self.prediction_type!r}; mu knows {', '.join(PREDICTIONS)}."
            )
        # not in the state dict: it belongs to the architecture, and a checkpoint of the weights
        # alone should fit
        self._alphas: Tensor = schedule.alphas_cumprod.float().clone()
        self.register_buffer("alphas_cumprod", self._alphas.clone(), persistent=False)
        self.sampler = sampler or Sampler()
        self.reduction = reduction
        self.condition_dropout = condition_dropout
        self.min_snr_gamma = min_snr_gamma
        self.weights_metadata: dict[str, Any] = {}

    @property
    def timesteps(self) -> int:
        """Number T of noise levels."""
        return len(self.alphas_cumprod)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert the model; the noise schedule moves along and stays float32."""
        super()._apply(fn, recurse)
        if "_alphas" in self.__dict__ and self.alphas_cumprod.dtype != self._alphas.dtype:
            self.alphas_cumprod = self._alphas.to(self.alphas_cumprod.device)
        return self

    # ---- operations of subclasses ----------------------------------------------------------------

    @abstractmethod
    def condition(self, batch: Batch) -> Condition:
        """Conditions of the samples, the null condition where `dropped`.

        They are differentiable where their encoder is trained.
        """

    @abstractmethod
    def substitute_condition(self, batch: Batch, target: Any = None) -> Condition:
        """Substitute conditions of the samples: `target`, or the batch's `substitute`."""

    @abstractmethod
    def null(self, count: int) -> Condition:
        """Null condition (empty prompt, null label), `count` times."""

    @abstractmethod
    def denoise(self, noised: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Output of the network for `noised` `[B, *sample_shape]` at timesteps `t` `[B]`."""

    @abstractmethod
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents `[B, *sample_shape]` of images `[B, C, H, W]` in [0, 1].

        They are sampled from the encoder's posterior by `noise`; None takes its mean.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1] of latents."""

    # ---- noise levels and parametrisations -------------------------------------------------------

    def levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise levels √ᾱ_t and √(1 − ᾱ_t), shaped to multiply `like`.

        They have at least float32: in bfloat16, 1 − ᾱ_t would be 0 at the first timesteps.
        """
        wide = torch.promote_types(like.dtype, torch.float32)
        alpha_bar = self.alphas_cumprod[t].to(wide).view(-1, *[1] * (like.dim() - 1))
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def add_noise(self, latent: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Noised latents x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε."""
        signal, level = self.levels(t, latent)
        return (signal * latent + level * noise).to(latent.dtype)

    def target(self, latent: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Training target of the network: ε, v = √ᾱ_t ε − √(1 − ᾱ_t) x_0, or x_0."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latent
        signal, level = self.levels(t, latent)
        return (signal * noise - level * latent).to(latent.dtype)

    def to_sample(self, output: Tensor, noised: Tensor, t: Tensor) -> Tensor:
        """Predicted sample x̂_0 from the network's output at x_t."""
        if self.prediction_type == "sample":
            return output
        signal, level = self.levels(t, noised)
        if self.prediction_type == "v_prediction":
            return (signal * noised - level * output).to(noised.dtype)
        return ((noised - level * output) / signal).to(noised.dtype)

    def to_epsilon(self, output: Tensor, noised: Tensor, t: Tensor) -> Tensor:
        """Predicted noise ε̂ from the network's output at x_t."""
        if self.prediction_type == "epsilon":
            return output
        signal, level = self.levels(t, noised)
        if self.prediction_type == "v_prediction":
            return (signal * output + level * noised).to(noised.dtype)
        return ((noised - signal * output) / level).to(noised.dtype)

    def epsilon(self, noised: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predicted noise, for every parametrisation of the network."""
        return self.to_epsilon(self.denoise(noised, t, condition), noised, t)

    def pair(
        self, noised: Tensor, t: Tensor, condition: Condition, null: Condition | None = None
    ) -> tuple[Tensor, Tensor]:
        """Outputs under the condition and under the null condition, from one batch of 2 B."""
        null = self.null(len(condition)) if null is None else null
        both = self.denoise(
            torch.cat([noised, noised]), torch.cat([t, t]), Condition.cat([condition, null])
        )
        conditional, unconditional = both.chunk(2)
        return conditional, unconditional

    def guided(
        self,
        noised: Tensor,
        t: Tensor,
        condition: Condition,
        scale: float,
        null: Condition | None = None,
    ) -> Tensor:
        """Classifier-free guidance o_∅ + s (o_c − o_∅) of the outputs; s = 1 takes one pass."""
        if scale == 1:
            return self.denoise(noised, t, condition)
        conditional, unconditional = self.pair(noised, t, condition, null)
        return unconditional + scale * (conditional - unconditional)

    # ---- drawing images --------------------------------------------------------------------------

    def start(self, seeds: Sequence[int | torch.Generator]) -> Tensor:
        """Standard normal noise `[B, *sample_shape]`, as in the pipelines of diffusers.

        Each seed has a generator of its own on the CPU; a generator in its place moves on.
        """
        like = self.alphas_cumprod
        generators = [
            seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(int(seed))
            for seed in seeds
        ]
        drawn = [torch.randn(self.sample_shape, generator=generator) for generator in generators]
        return torch.stack(drawn).to(device=like.device, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the denoiser's weights."""
        return next(self.parameters()).dtype

    @torch.no_grad()
    def generate(
        self, condition: Condition, seeds: Sequence[int], sampler: Sampler | None = None
    ) -> Tensor:
        """Images `[B, C, H, W]` float32 in [0, 1]; image i depends on condition i and seed i only.

        Raises:
            InputError: when there are more or fewer seeds than conditions.
        """
        if len(seeds) != len(condition):
            raise InputError(f"{len(condition)} conditions need as many seeds, not {len(seeds)}.")
        return self.decode((sampler or self.sampler).draw(self, condition, seeds)).float()

    # ---- the contract of backbones ---------------------------------------------------------------

    def prepare(self, batch: Batch, seed: int) -> dict[str, Any]:
        """Batch with latents, t and noise of each sample, keyed by (seed, index, visit).

        In train mode it has the mask of dropped conditions too. Samples without an image get none
        of these, for data-free methods and for suites that generate.
        """
        part = dict(batch)
        index = part["index"]
        visit = part["visit"]
        if "image" in part:
            shape = self.sample_shape
            encoder_noise = (
                rng.normal(seed, index, visit, "posterior", *shape)
                if self.samples_posterior
                else None
            )
            latent = self.encode(part["image"], encoder_noise)
            noise = rng.normal(seed, index, visit, "noise", *shape).to(latent.dtype)
            t = rng.integers(seed, index, visit, "timestep", self.timesteps)
            part |= {
                "latent": latent,
                "noise": noise,
                "t": t,
                "noised": self.add_noise(latent, noise, t),
            }
        if self.training and self.condition_dropout:
            part["dropped"] = (
                rng.uniform(seed, index, visit, "condition-dropout", 1)[:, 0]
                < self.condition_dropout
            )
        return part

    samples_posterior: bool = False
    """Whether `encode` samples from a posterior."""

    def predict(self, batch: Batch) -> Tensor:
        """Output of the network at each sample's x_t, t and condition, `[B, *sample_shape]`."""
        return self.denoise(self.noised(batch), batch["t"], self.condition(batch))

    @staticmethod
    def noised(batch: Batch) -> Tensor:
        """Noised latents x_t of each sample.

        Raises:
            InputError: when the task gives prompts without images.
        """
        if "noised" not in batch:
            raise InputError(
                "this loss needs images, and the task gives none; choose a task with images, or a "
                "data-free method (ESD, AdvUnlearn, SFD, UCE)."
            )
        return batch["noised"]

    def squared_error(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared errors `[B]`: mean over the elements of a sample, or their sum (`reduction`).

        They are computed in at least float32.
        """
        wide = torch.promote_types(output.dtype, torch.float32)
        return functional.squared_error(output.to(wide), target.to(wide), self.reduction)

    def loss(self, batch: Batch, prediction: Tensor | None = None) -> WeightedSum:
        """Squared error to the training target ε, v or x_0."""
        output = self.predict(batch) if prediction is None else prediction
        error = self.squared_error(output, self.target(batch["latent"], batch["noise"], batch["t"]))
        if self.training and self.min_snr_gamma is not None:
            error = error * self._min_snr(batch["t"])
        return self.count(batch, error)

    def _min_snr(self, t: Tensor) -> Tensor:
        assert self.min_snr_gamma is not None
        alpha_bar = self.alphas_cumprod[t]
        clipped = (alpha_bar / (1 - alpha_bar)).clamp_max(self.min_snr_gamma)
        scale = {
            "sample": clipped,
            "epsilon": clipped * (1 - alpha_bar) / alpha_bar.clamp_min(1e-8),
            "v_prediction": clipped * (1 - alpha_bar),
        }
        return scale[self.prediction_type]

    def divergence(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float = 1.0
    ) -> WeightedSum:
        """Squared error between two outputs at the same x_t; the temperature is not used."""
        return self.count(batch, self.squared_error(student, teacher))

    def substitute_loss(
        self, batch: Batch, target: Any = None, prediction: Tensor | None = None
    ) -> WeightedSum:
        """Squared error to the output under the substitute condition at the same x_t.

        That output is the model's own, without gradient.
        """
        output = self.predict(batch) if prediction is None else prediction
        with torch.no_grad():
            substituted = self.denoise(
                self.noised(batch), batch["t"], self.substitute_condition(batch, target)
            )
        return self.count(batch, self.squared_error(output, substituted))

    def outputs(
        self, batch: Batch, names: Iterable[str], prediction: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Outputs: `nll` [B], squared error at the drawn t, a surrogate of the likelihood bound."""
        available = {
            "nll": lambda: self.loss(batch, prediction)[0].float(),
            "t": lambda: batch["t"],
        }
        return select_outputs(available, names, "a diffusion model")

    def scores(self, batch: Batch, prediction: Tensor | None = None) -> dict[str, Tensor]:
        """Scores: `loss`, the squared error; none for samples without images."""
        return {"loss": self.loss(batch, prediction)[0].float()} if "noised" in batch else {}
