"""Elastic pull of a diffusion model's weights to the original's, by a diagonal Fisher matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mu.backbones import Diffusion
from mu.core.gradients.summed import gradient_of
from mu.data.batch import Batch
from mu.data.plan import Retain
from mu.functional.penalties import quadratic_penalty
from mu.methods.bases.diffusion import DiffusionMethod
from mu.utils import rng
from mu.utils.errors import InputError
from mu.utils.modules import buffer_like, eval_mode, register_like

_PREFIX = "fisher_of_"


class ElasticDiffusionMethod(DiffusionMethod):
    """A diffusion method with the penalty Σ_i F_i (θ_i − θ*_i)² of its `pull`.

    F = E_x (∂/∂θ Σ_t ℓ_t(x, c))² at θ*, over samples x of the retain part and all timesteps t; the
    gradients of a sample's timesteps are added before they are squared. F is computed once, before
    the first step, and is in the checkpoint.

    Args:
        backbone: the original.
        fisher_samples: samples of F at most.
        fisher_timesteps: number of random timesteps of each sample; None takes all.
        fisher_chunk: timesteps in one backward pass; affects speed and memory only.
    """

    needs_reference = True
    fisher_known: Tensor

    def __init__(
        self,
        backbone: Diffusion,
        fisher_samples: int = 5000,
        fisher_timesteps: int | None = None,
        fisher_chunk: int = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        timesteps = 1 if fisher_timesteps is None else fisher_timesteps
        if min(fisher_samples, fisher_chunk, timesteps) < 1:
            raise InputError(
                f"{type(self).__name__} needs fisher_samples, fisher_timesteps and fisher_chunk of "
                "at least 1."
            )
        self.fisher_samples = fisher_samples
        self.fisher_timesteps = fisher_timesteps
        self.fisher_chunk = fisher_chunk
        self.register_buffer("fisher_known", torch.tensor(False))

    def configure_model(self) -> None:
        """Buffers for F, so that a checkpoint can be loaded into them."""
        first = not self.original_hash
        super().configure_model()
        if first:
            register_like(self, _PREFIX, self.trainable())

    def on_fit_start(self) -> None:
        """F at the original weights, unless a checkpoint brought it."""
        super().on_fit_start()
        if not bool(self.fisher_known):
            with self.stopwatch("fisher"):
                for (name, _), value in zip(self.trainable(), self.fisher(), strict=True):
                    buffer_like(self, _PREFIX, name).copy_(value)
            self.fisher_known.fill_(True)

    def fisher(self) -> list[Tensor]:
        """Diagonal of F, one tensor for each trainable weight."""
        squares = [torch.zeros_like(weight) for _, weight in self.trainable()]
        count = torch.zeros((), device=self.device)
        plan = Retain(batch_size=1, limit=self.fisher_samples)
        with eval_mode(self.backbone), torch.enable_grad(), self.precision():
            for batch in self.iterate_batches(plan, augment=False, shard="batches"):
                if "retain" in batch:
                    gradient = self.score(batch["retain"])
                    torch._foreach_addcmul_(squares, gradient, gradient)
                    count += 1
        *squares, count = self.sum_over_ranks([*squares, count])
        return [value / count for value in squares]

    def score(self, part: Batch) -> list[Tensor]:
        """∂/∂θ Σ_t ℓ_t of a part with a single sample, with noise drawn for each t."""
        model = self.denoiser
        timesteps = self.score_timesteps(part)
        gradient = [torch.zeros_like(weight) for _, weight in self.trainable()]
        for t in timesteps.split(self.fisher_chunk):
            latent = part["latent"].expand(len(t), *model.sample_shape)
            index = part["index"].expand(len(t))
            noise = rng.normal(self.seed, index, t, "fisher-noise", *model.sample_shape)
            noise = noise.to(latent.dtype)
            noised = model.add_noise(latent, noise, t)
            output = model.denoise(noised, t, model.condition(part).repeat(len(t)))
            errors = model.squared_error(output, model.target(latent, noise, t))
            loss = errors.sum() * (model.timesteps / len(timesteps))
            torch._foreach_add_(gradient, gradient_of(self, loss))
        return gradient

    def score_timesteps(self, part: Batch) -> Tensor:
        """The timesteps of `score`, ascending: all of them, or a random `fisher_timesteps`."""
        total = self.denoiser.timesteps
        if self.fisher_timesteps is None or self.fisher_timesteps >= total:
            return torch.arange(total, device=part["index"].device)
        order = rng.uniform(self.seed, part["index"], 0, "fisher-timesteps", total)[0].argsort()
        return order[: self.fisher_timesteps].sort().values

    def pull(self) -> Tensor:
        """Σ_i F_i (θ_i − θ*_i)², a scalar."""
        original = dict(self.original.named_parameters())
        named = self.trainable()
        return quadratic_penalty(
            [weight for _, weight in named],
            [original[name] for name, _ in named],
            [buffer_like(self, _PREFIX, name) for name, _ in named],
        )
