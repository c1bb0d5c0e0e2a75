"""Where a method takes x_t and t from: noised data, partial sampling, stored trajectories, a
one-step generator.

Everything is drawn from (seed, index, visit), so that a source gives the same latents on any number
of ranks and after a resume, as long as the weights that it samples with are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mu.utils import rng
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible

if TYPE_CHECKING:
    from mu.backbones import Condition, Diffusion
    from mu.core.protocols import Method

Latents = tuple[Tensor, Tensor]
"""x_t `[B, *sample_shape]` and the timestep `[B]` that the network is told."""


class LatentSource(Reconstructible, ABC):
    """Gives x_t and t for the samples of a part. Without gradient."""

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
        """The source itself."""


class NoisedData(LatentSource):
    """The task's images, noised: what `prepare` has drawn."""

    def draw(
        self, module: Method, part: dict[str, Any], condition: Condition, stream: str
    ) -> Latents:
        return diffusion(module).noised(part), part["t"]


class PartialSampling(LatentSource):
    """Guided DDIM sampling that stops at a random step (ESD, AdvUnlearn, Receler).

    With `steps` S on T timesteps, the grid is τ_i = i T/S + 1 (offset 1; the leading DDIM grid).
    One k is drawn for each sample.

    Args:
        steps: S.
        guidance: scale s of the sampling.
        by: whose weights sample: `current` (released classic ESD, AdvUnlearn) or `reference` (the
            2025 ESD).
        timestep: `exact` trains at the very timestep that x_t stands at. `jitter` is the classic
            code: k is uniform in {0..S−1}, the sampler walks the indices S−2 .. k (its slice drops
            the last entry of the grid, and k = 0 walks as k = 1), and t is uniform in [kT/S,
            (k+1)T/S), which is 39 to 58 timesteps noisier than x_t is (spec: ESD, classic sampler).
    """

    def __init__(
        self,
        steps: int = 50,
        guidance: float = 3.0,
        by: Literal["current", "reference"] = "current",
        timestep: Literal["exact", "jitter"] = "exact",
    ) -> None:
        if steps < 2:
            raise InputError(
                f"partial sampling on {steps} steps has nowhere to stop; give at least 2."
            )
        self.steps = steps
        self.guidance = guidance
        self.by = by
        self.timestep = timestep

    def draw(
        self, module: Method, part: dict[str, Any], condition: Condition, stream: str
    ) -> Latents:
        backbone = diffusion(module)
        index = part["index"]
        visit = part["visit"]
        seed = module.seed
        total = backbone.timesteps
        start = rng.normal(seed, index, visit, f"{stream}-start", *backbone.sample_shape).to(
            backbone.dtype
        )
        k = rng.integers(seed, index, visit, f"{stream}-stop", self.steps)
        model: Any = backbone
        if self.by == "reference":
            assert module.reference is not None, "the method declares needs_reference"
            model = module.reference
        if self.timestep == "exact":
            grid = torch.flip(
                torch.arange(self.steps, device=index.device) * (total // self.steps) + 1, [0]
            ).clamp_max(total - 1)
            latent = partial_ddim(model, start, condition, grid, k, self.guidance)
            return latent, grid[k]
        grid = torch.flip(
            torch.arange(self.steps - 1, device=index.device) * (total // self.steps) + 1, [0]
        )
        # indices S-2 .. k-1+... : after the step at index i the walk stops when i + 1 == k, so k >=
        # 1 takes S - k steps, and k = 0 all
        taken = torch.where(k == 0, self.steps - 1, self.steps - k)
        latent = partial_ddim(model, start, condition, grid, taken, self.guidance)
        width = total // self.steps
        return latent, k * width + rng.integers(seed, index, visit, f"{stream}-jitter", width)


class StoredTrajectories(LatentSource):
    """Trajectories of the original model, sampled once a prompt and then reused: each step takes a
    random stop of a random trajectory.

    With a frozen sampler (`by="reference"`) each stored x_t has the distribution that a fresh one
    would have, so every step's gradient is unbiased; across steps they are drawn from a finite set,
    which is the approximation. Where the current weights would sample, it is an approximation in
    itself; the paper's presets do not use it.

    Args:
        count: trajectories for each prompt.
        steps: as in PartialSampling.
        guidance: as in PartialSampling.
    """

    def __init__(self, count: int = 8, steps: int = 50, guidance: float = 3.0) -> None:
        if count < 1:
            raise InputError(f"{count} stored trajectories give no latent; store at least 1.")
        self.count = count
        self.steps = steps
        self.guidance = guidance
        self._stored: dict[bytes, Tensor] = {}

    def draw(
        self, module: Method, part: dict[str, Any], condition: Condition, stream: str
    ) -> Latents:
        assert module.reference is not None, "the method declares needs_reference"
        model: Any = module.reference
        total = model.timesteps
        device = condition.states.device
        grid = torch.flip(
            torch.arange(self.steps, device=device) * (total // self.steps) + 1, [0]
        ).clamp_max(total - 1)
        which = rng.integers(
            module.seed, part["index"], part["visit"], f"{stream}-trajectory", self.count
        ).tolist()
        prompts = [
            _fingerprint(condition.rows(slice(row, row + 1)).states)
            for row in range(len(condition))
        ]
        for row, prompt in enumerate(prompts):
            if prompt not in self._stored:
                with module.stopwatch("trajectories"):
                    self._stored[prompt] = self._sample(
                        model, prompt, condition.rows(slice(row, row + 1)), grid, module.seed
                    )
        k = rng.integers(module.seed, part["index"], part["visit"], f"{stream}-stop", self.steps)
        chosen = [
            self._stored[prompt][number, stop]
            for prompt, number, stop in zip(prompts, which, k.tolist(), strict=True)
        ]
        return torch.stack(chosen), grid[k]

    def _sample(
        self, model: Diffusion, prompt: bytes, condition: Condition, grid: Tensor, seed: int
    ) -> Tensor:
        """All of a prompt's trajectories `[count, S, ...]` in one batch of their own, so that a
        resumed run makes them bit for bit.
        """
        numbers = torch.arange(self.count, device=grid.device) + int.from_bytes(
            prompt[:7], "little"
        )
        start = rng.normal(seed, numbers, 0, "trajectory-start", *model.sample_shape).to(
            model.dtype
        )
        return torch.stack(
            list(ddim_path(model, start, condition.repeat(self.count), grid, self.guidance)), 1
        )


def _fingerprint(states: Tensor) -> bytes:
    import hashlib

    return hashlib.blake2b(states.detach().float().cpu().numpy().tobytes(), digest_size=16).digest()


def diffusion(module: Method) -> Diffusion:
    """The module's backbone, which is a noise predictor.

    Raises:
        InputError: when it is not.
    """
    from mu.backbones import Diffusion

    if not isinstance(module.backbone, Diffusion):
        raise InputError(
            "latents are sampled from a diffusion model, not from a "
            f"{type(module.backbone).__name__}."
        )
    return module.backbone


def ddim_step(model: Diffusion, output: Tensor, noised: Tensor, t: Tensor, after: Tensor) -> Tensor:
    """Deterministic DDIM (Song et al., ICLR 2021, arXiv 2010.02502, η = 0): from timestep `t` to
    `after` (−1 is no noise).

    Args:
        model: gives the noise levels.
        output: the network's output at (`noised`, `t`).
        noised: x_t `[B, ...]`.
        t: `[B]` int64.
        after: `[B]` int64.
    """
    kept = torch.where(
        after < 0,
        torch.ones_like(model.alphas_cumprod[0]),
        model.alphas_cumprod[after.clamp_min(0)],
    )
    kept = kept.to(noised.dtype).view(-1, *[1] * (noised.dim() - 1))
    return kept.sqrt() * model.to_sample(output, noised, t) + (1 - kept).sqrt() * model.to_epsilon(
        output, noised, t
    )


def ddim_path(
    model: Diffusion, start: Tensor, condition: Condition, grid: Tensor, guidance: float
) -> Iterator[Tensor]:
    """x at each timestep of the descending `grid` `[S]`: first `start`, then after each step but
    the last.
    """
    latent = start
    null = model.null(len(start)) if guidance != 1 else None
    for place, t in enumerate(grid):
        yield latent
        if place + 1 < len(grid):
            output = model.guided(latent, t.expand(len(start)), condition, guidance, null)
            latent = ddim_step(
                model, output, latent, t.expand(len(start)), grid[place + 1].expand(len(start))
            )


def partial_ddim(
    model: Diffusion,
    start: Tensor,
    condition: Condition,
    grid: Tensor,
    taken: Tensor,
    guidance: float,
) -> Tensor:
    """Each sample after its own number of guided steps; samples that have arrived cost nothing
    more.

    Args:
        model: whose weights sample.
        start: x at `grid[0]`, `[B, ...]`.
        condition: B conditions.
        grid: descending timesteps `[S]`.
        taken: steps of each sample, `[B]` in 0..S; a step after the last timestep of the grid goes
            to timestep 0, as DDIM with `set_alpha_to_one=False`.
    """
    latent = start.clone()
    width = int(grid[0] - grid[1]) if len(grid) > 1 else 1
    null = model.null(len(start)) if guidance != 1 else None
    for place in range(int(taken.max())):
        alive = (taken > place).nonzero().flatten()
        t = grid[place].expand(len(alive))
        after = (
            grid[place + 1].expand(len(alive))
            if place + 1 < len(grid)
            else (t - width).clamp_min(0)
        )
        mine = condition if len(alive) == len(start) else condition.rows(alive)
        nothing = None if null is None else null.rows(slice(0, len(alive)))
        output = model.guided(latent[alive], t, mine, guidance, nothing)
        latent[alive] = ddim_step(model, output, latent[alive], t, after)
    return latent
