"""Latent sources for diffusion methods: noised data, partial DDIM sampling, stored trajectories.

A latent source gives x_t and t. Its draws are functions of (seed, index, visit), so that it gives
the same latents on any number of ranks and after a resume, as long as the weights that it samples
with are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from mu.backbones import Condition, Diffusion
from mu.core.protocols import Method
from mu.utils import rng
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible

Latents = tuple[Tensor, Tensor]
"""x_t `[B, *sample_shape]` and the timestep `[B]` that conditions the network."""


class LatentSource(Reconstructible, ABC):
    """Source of x_t and t for the samples of a part, without gradient."""

    @torch.no_grad()
    def __call__(
        self, module: Method, part: dict[str, Any], condition: Condition, stream: str = "latents"
    ) -> Latents:
        """x_t and t of each sample.

        Args:
            module: the method, with its backbone (and reference, where a source samples from the
                original).
            part: the prepared part; its `index` and `visit` decide the draws.
            condition: what the sampled pictures show, one a sample.
            stream: names the purpose, so that two draws in one step differ.
        """
        return self.draw(module, part, condition.detach(), stream)

    @abstractmethod
    def draw(
        self, module: Method, part: dict[str, Any], condition: Condition, stream: str
    ) -> Latents:
        """x_t and t of each sample, under `no_grad`; subclasses override this."""


class NoisedData(LatentSource):
    """The task's images with the noise and timestep that `prepare` has drawn."""

    def draw(
        self, module: Method, part: dict[str, Any], condition: Condition, stream: str
    ) -> Latents:
        return diffusion_backbone(module).noised(part), part["t"]


class PartialSampling(LatentSource):
    """Guided DDIM sampling that stops at a random step (ESD, AdvUnlearn, Receler).

    With `num_inference_steps` S on T timesteps, the grid is τ_i = i T/S + 1 (offset 1; the leading
    DDIM grid). One k is drawn for each sample.

    Args:
        num_inference_steps: S.
        guidance_scale: scale s of the sampling.
        by: whose weights sample: `current` (released classic ESD, AdvUnlearn) or `reference` (the
            2025 ESD).
        timestep: `exact` trains at the timestep of x_t. `jitter` is the classic
            code: k is uniform in {0..S−1}, the sampler walks the indices S−2 .. k (its slice drops
            the last entry of the grid, and k = 0 walks as k = 1), and t is uniform in [kT/S,
            (k+1)T/S), which is 39 to 58 timesteps noisier than x_t is (spec: ESD, classic sampler).
    """

    def __init__(
        self,
        num_inference_steps: int = 50,
        guidance_scale: float = 3.0,
        by: Literal["current", "reference"] = "current",
        timestep: Literal["exact", "jitter"] = "exact",
    ) -> None:
        if num_inference_steps < 2:
            raise InputError(
                "partial sampling needs at least 2 steps to stop at, not "
                f"{num_inference_steps}; give num_inference_steps."
            )
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.by = by
        self.timestep = timestep

    def draw(
        self, module: Method, part: dict[str, Any], condition: Condition, stream: str
    ) -> Latents:
        # the sampler's weights and its start
        backbone = diffusion_backbone(module)
        model = backbone if self.by == "current" else original(module)
        index = part["index"]
        start = rng.normal(
            module.seed, index, part["visit"], f"{stream}-start", *backbone.sample_shape
        ).to(backbone.dtype)
        # where each sample stops
        stop = self.stops(module, part, f"{stream}-stop", self.num_inference_steps)
        if self.timestep == "exact":
            grid = ddim_grid(backbone.timesteps, self.num_inference_steps, index.device)
            latent = partial_ddim(model, start, condition, grid, stop, self.guidance_scale)
            return latent, grid[stop]
        # the classic code: after the step at index i the walk stops when i + 1 == stop, so that a
        # stop >= 1 takes S - stop steps, and stop 0 takes all
        width = backbone.timesteps // self.num_inference_steps
        grid = torch.flip(
            torch.arange(self.num_inference_steps - 1, device=index.device) * width + 1, [0]
        )
        steps = torch.where(
            stop == 0, self.num_inference_steps - 1, self.num_inference_steps - stop
        )
        latent = partial_ddim(model, start, condition, grid, steps, self.guidance_scale)
        return latent, stop * width + self.stops(module, part, f"{stream}-jitter", width)

    def stops(self, module: Method, part: dict[str, Any], purpose: str, count: int) -> Tensor:
        """A random integer in 0..count−1 for each sample, `[B]`, keyed by `purpose`."""
        return rng.integers(module.seed, part["index"], part["visit"], purpose, count)


class CoupledSampling(PartialSampling):
    """Partial DDIM sampling in which all samples of a step, forget and retain, share k and t.

    As in AdvUnlearn's released code. A step then takes no more sampler steps one after the other
    than its one k asks for.

    Args:
        num_inference_steps: see PartialSampling.
        guidance_scale: see PartialSampling.
        by: see PartialSampling.
        timestep: see PartialSampling.
    """

    def stops(self, module: Method, part: dict[str, Any], purpose: str, count: int) -> Tensor:
        """One integer for all samples, the same on all ranks: keyed by the step, not by samples."""
        no_sample = torch.zeros_like(part["index"][:1])
        stop = rng.integers(module.seed, no_sample, module.trainer.global_step, purpose, count)
        return stop.expand(len(part["index"]))


class StoredTrajectories(LatentSource):
    """Sampling trajectories of the original model, stored for each prompt and reused.

    Each training step takes a random stop of a random trajectory. With a frozen sampler
    (`by="reference"`) each stored x_t has the distribution that a fresh one would have, so every
    step's gradient is unbiased; across steps they are drawn from a finite set, which is the
    approximation. Where the current weights would sample, it is an approximation in itself; the
    paper's presets do not use it.

    Args:
        count: trajectories for each prompt.
        num_inference_steps: as in PartialSampling.
        guidance_scale: as in PartialSampling.
    """

    def __init__(
        self, count: int = 8, num_inference_steps: int = 50, guidance_scale: float = 3.0
    ) -> None:
        if count < 1:
            raise InputError(f"{count} stored trajectories give no latent; store at least 1.")
        self.count = count
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self._stored: dict[bytes, Tensor] = {}

    def draw(
        self, module: Method, part: dict[str, Any], condition: Condition, stream: str
    ) -> Latents:
        model = original(module)
        grid = ddim_grid(model.timesteps, self.num_inference_steps, condition.states.device)
        conditions = [condition.rows(slice(row, row + 1)) for row in range(len(condition))]
        prompts = [_fingerprint(single.states) for single in conditions]
        # sample what is not stored yet
        for prompt, single in zip(prompts, conditions, strict=True):
            if prompt not in self._stored:
                with module.stopwatch("trajectories"):
                    self._stored[prompt] = self._sample(model, prompt, single, grid, module.seed)
        # a random stop of a random trajectory of each sample's prompt
        index = part["index"]
        visit = part["visit"]
        trajectory = rng.integers(module.seed, index, visit, f"{stream}-trajectory", self.count)
        stop = rng.integers(module.seed, index, visit, f"{stream}-stop", self.num_inference_steps)
        latents = [
            self._stored[prompt][row, position]
            for prompt, row, position in zip(
                prompts, trajectory.tolist(), stop.tolist(), strict=True
            )
        ]
        return torch.stack(latents), grid[stop]

    def _sample(
        self, model: Diffusion, prompt: bytes, condition: Condition, grid: Tensor, seed: int
    ) -> Tensor:
        """All trajectories of one prompt, `[count, S, ...]`.

        They are a batch of their own, so that a resumed run makes them bit for bit.
        """
        keys = torch.arange(self.count, device=grid.device) + int.from_bytes(prompt[:7], "little")
        start = rng.normal(seed, keys, 0, "trajectory-start", *model.sample_shape).to(model.dtype)
        path = ddim_path(model, start, condition.repeat(self.count), grid, self.guidance_scale)
        return torch.stack(list(path), 1)


def _fingerprint(states: Tensor) -> bytes:
    import hashlib

    return hashlib.blake2b(states.detach().float().cpu().numpy().tobytes(), digest_size=16).digest()


def diffusion_backbone(module: Method) -> Diffusion:
    """The method's backbone, by the type Diffusion.

    Raises:
        InputError: the backbone is no diffusion model.
    """
    from mu.backbones import Diffusion

    if not isinstance(module.backbone, Diffusion):
        raise InputError(
            "latents are sampled from a diffusion model, not from a "
            f"{type(module.backbone).__name__}."
        )
    return module.backbone


def original(module: Method) -> Diffusion:
    """The method's reference, the frozen original model."""
    assert module.reference is not None, "the method declares needs_reference"
    model: Any = module.reference
    return model


def ddim_grid(timesteps: int, steps: int, device: torch.device) -> Tensor:
    """Descending timesteps `[S]` of the leading DDIM grid: τ_i = i ⌊T/S⌋ + 1, at most T − 1.

    Example:
        >>> ddim_grid(100, 5, torch.device("cpu"))
        tensor([81, 61, 41, 21,  1])
    """
    grid = torch.arange(steps, device=device) * (timesteps // steps) + 1
    return grid.flip(0).clamp_max(timesteps - 1)


def ddim_step(model: Diffusion, output: Tensor, noised: Tensor, t: Tensor, after: Tensor) -> Tensor:
    """One deterministic DDIM step, from timestep `t` to `after`.

        x_after = sqrt(ᾱ_after) x̂_0 + sqrt(1 − ᾱ_after) ε̂

    Song et al., ICLR 2021, arXiv 2010.02502, with η = 0.

    Args:
        model: gives the noise levels.
        output: the network's output at (`noised`, `t`).
        noised: x_t `[B, ...]`.
        t: `[B]` int64.
        after: `[B]` int64; −1 is no noise, ᾱ = 1.

    Returns:
        x_after `[B, ...]`.
    """
    alpha = torch.where(
        after < 0,
        torch.ones_like(model.alphas_cumprod[0]),
        model.alphas_cumprod[after.clamp_min(0)],
    )
    wide = torch.promote_types(noised.dtype, torch.float32)  # 1 − ᾱ would be 0 in bfloat16
    alpha = alpha.to(wide).view(-1, *[1] * (noised.dim() - 1))
    sample = model.to_sample(output, noised, t)
    epsilon = model.to_epsilon(output, noised, t)
    return (alpha.sqrt() * sample + (1 - alpha).sqrt() * epsilon).to(noised.dtype)


def ddim_path(
    model: Diffusion, start: Tensor, condition: Condition, grid: Tensor, guidance_scale: float
) -> Iterator[Tensor]:
    """Guided DDIM sampling: x at each timestep of the descending `grid` `[S]`, `start` first."""
    latent = start
    null = model.null(len(start)) if guidance_scale != 1 else None
    timesteps = grid[:, None].expand(-1, len(start))
    yield latent
    for t, after in pairwise(timesteps):
        output = model.guided(latent, t, condition, guidance_scale, null)
        latent = ddim_step(model, output, latent, t, after)
        yield latent


def partial_ddim(
    model: Diffusion,
    start: Tensor,
    condition: Condition,
    grid: Tensor,
    steps: Tensor,
    guidance_scale: float,
) -> Tensor:
    """Guided DDIM sampling that stops after each sample's own number of steps.

    Samples that have stopped cost nothing more.

    Args:
        model: whose weights sample.
        start: x at `grid[0]`, `[B, ...]`.
        condition: B conditions.
        grid: descending timesteps `[S]`.
        steps: of each sample, `[B]` in 0..S; a step after the last timestep of the grid goes
            to timestep 0, as DDIM with `set_alpha_to_one=False`.
    """
    latent = start.clone()
    width = int(grid[0] - grid[1]) if len(grid) > 1 else 1
    null = model.null(len(start)) if guidance_scale != 1 else None
    for position in range(int(steps.max())):
        # the rows that have not stopped, from this timestep to the next one
        rows = (steps > position).nonzero().flatten()
        t = grid[position].expand(len(rows))
        following = grid[position + 1] if position + 1 < len(grid) else (t - width).clamp_min(0)
        after = following.expand(len(rows))
        # as few conditions as rows
        row_condition = condition if len(rows) == len(start) else condition.rows(rows)
        row_null = None if null is None else null.rows(slice(0, len(rows)))
        output = model.guided(latent[rows], t, row_condition, guidance_scale, row_null)
        latent[rows] = ddim_step(model, output, latent[rows], t, after)
    return latent
