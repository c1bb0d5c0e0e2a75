"""Latent sources: the walk of the released sampler step by step, and what is drawn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mu.backbones import TextToImage
from mu.core.reference import frozen_copy
from mu.methods import FineTune
from mu.methods.components.latents import (
    NoisedData,
    PartialSampling,
    StoredTrajectories,
    ddim_step,
    partial_ddim,
)
from mu.utils.errors import InputError
from tests.support.doubles import STEPS, pictures, pipeline_folder, text_to_image
from tests.support.helpers import classifier


def module_of(backbone: Any = None, seed: int = 0) -> FineTune:
    module = FineTune(backbone or text_to_image(), seed=seed)
    module.reference = frozen_copy(module.backbone)
    module.backbone.eval()
    return module


def part_of(module: FineTune, count: int = 6, visit: int = 0) -> dict[str, Any]:
    task = pictures()
    task.setup()
    part: dict[str, Any] = task.datasets["forget"].__getitems__(list(range(count)))  # type: ignore[attr-defined]
    return module.backbone.prepare(part | {"visit": torch.full((count,), visit)}, module.seed)


def backbone_of(module: FineTune) -> TextToImage:
    assert isinstance(module.backbone, TextToImage)
    return module.backbone


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_ddim_step_is_that_of_diffusers(prediction: str) -> None:
    """Fails when our step leaves diffusers' for a parametrisation."""
    from diffusers import DDIMScheduler

    backbone = text_to_image(model=pipeline_folder(prediction=prediction))
    scheduler = DDIMScheduler.from_config(backbone.scheduler_config)
    scheduler.set_timesteps(10)
    latent = torch.randn(2, 4, 4, 4)
    output = torch.randn(2, 4, 4, 4)
    expected = scheduler.step(output, 51, latent, return_dict=False)[0]
    ours = ddim_step(backbone, output, latent, torch.tensor([51, 51]), torch.tensor([41, 41]))
    assert torch.allclose(ours, expected, atol=1e-5)


def test_each_sample_stops_at_its_own_step() -> None:
    """Fails when samples that have arrived go on, or one sample's stop moves its neighbours."""
    backbone = text_to_image().eval()
    condition = backbone.texts(["a red circle", "a blue star", "a green square"])
    grid = torch.tensor([81, 61, 41, 21, 1])
    start = torch.randn(3, 4, 4, 4)
    with torch.no_grad():
        together = partial_ddim(backbone, start, condition, grid, torch.tensor([0, 3, 5]), 3.0)
        for row, steps in enumerate((0, 3, 5)):
            x = start[row : row + 1]
            for position in range(steps):
                t = grid[position : position + 1]
                free = backbone.denoise(x, t, backbone.null(1))
                output = free + 3.0 * (
                    backbone.denoise(x, t, condition.rows(slice(row, row + 1))) - free
                )
                x = ddim_step(
                    backbone,
                    output,
                    x,
                    t,
                    grid[position + 1 : position + 2] if position < 4 else torch.tensor([0]),
                )
            assert torch.allclose(together[row], x[0], atol=1e-4)


@pytest.mark.parametrize(("k", "calls", "low"), [(0, 9, 0), (1, 9, 10), (9, 1, 90), (5, 5, 50)])
def test_the_walk_of_the_released_sampler(
    k: int, calls: int, low: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when `jitter` takes another number of steps than the classic code: S − k of them, and
    all S − 1 for k = 0.
    """
    from mu.utils import rng

    module = module_of()
    part = part_of(module, 1)
    real = rng.integers
    monkeypatch.setattr(
        "mu.methods.components.latents.rng.integers",
        lambda seed, index, visit, stream, high: (
            torch.full_like(index, k)
            if "stop" in stream
            else real(seed, index, visit, stream, high)
        ),
    )
    seen: list[float] = []
    backbone = backbone_of(module)
    handle = backbone.unet.register_forward_pre_hook(lambda _, args: seen.append(float(args[1][0])))
    _, t = PartialSampling(num_inference_steps=10, guidance_scale=3.0, timestep="jitter")(
        module, part, backbone.condition(part)
    )
    handle.remove()
    assert len(seen) == calls
    assert seen[:1] == [81.0], "the grid's last entry, 91, is dropped"
    assert low <= int(t) < low + 10


def test_exact_latents_stand_at_their_timestep() -> None:
    """Fails when the network is told another noise level than x_t has: with a perfect denoiser of a
    known x_0, x_t must be on its path.
    """
    module = module_of()
    part = part_of(module)
    backbone = backbone_of(module)
    clean = torch.randn(1, 4, 4, 4)

    def oracle(noised: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
        signal, level = backbone.levels(t, noised)
        return (noised - signal * clean) / level

    backbone.denoise = oracle  # type: ignore[method-assign]
    source = PartialSampling(num_inference_steps=10, guidance_scale=1.0)
    noised, t = source(module, part, backbone.condition(part))
    assert len(set(t.tolist())) > 2
    top = 91
    begin_signal = math.sqrt(backbone.alphas_cumprod[top])
    begin_level = math.sqrt(1 - backbone.alphas_cumprod[top])
    from mu.utils import rng

    start = rng.normal(0, part["index"], part["visit"], "latents-start", 4, 4, 4)
    noise = (start - begin_signal * clean) / begin_level
    signal, level = backbone.levels(t, noised)
    assert torch.allclose(noised, signal * clean + level * noise, atol=1e-4)


@pytest.mark.parametrize(
    "source",
    [
        NoisedData(),
        PartialSampling(4, 2.0),
        PartialSampling(4, 2.0, "reference", "jitter"),
        StoredTrajectories(3, 4, 2.0),
    ],
)
def test_draws_follow_the_sample_and_the_visit(source: Any) -> None:
    """Fails when latents depend on what else is in the batch, on a global generator, or repeat on
    the next visit.
    """
    module = module_of()
    backbone = backbone_of(module)
    part = part_of(module)
    torch.manual_seed(1)
    latents, t = source(module, part, backbone.condition(part))
    torch.manual_seed(2)
    alone = {name: value[2:4] for name, value in part.items()}
    alone_latents, _ = source(module, alone, backbone.condition(alone))
    assert torch.allclose(latents[2:4], alone_latents, atol=1e-5)
    again = part_of(module, visit=1)
    assert not torch.equal(t, source(module, again, backbone.condition(again))[1])
    assert not latents.requires_grad
    assert 0 <= int(t.min()) <= int(t.max()) < STEPS


def test_the_current_weights_or_the_original_sample() -> None:
    """Fails when `by` is ignored."""
    module = module_of()
    backbone = backbone_of(module)
    part = part_of(module)
    condition = backbone.condition(part)
    sources = {by: PartialSampling(6, 2.0, by) for by in ("current", "reference")}  # type: ignore[arg-type]
    assert torch.equal(*(source(module, part, condition)[0] for source in sources.values()))
    with torch.no_grad():
        for weight in backbone.unet.parameters():
            weight.mul_(1.5)
    assert not torch.equal(*(source(module, part, condition)[0] for source in sources.values()))


def test_trajectories_are_sampled_once() -> None:
    """Fails when a stored trajectory is sampled again, or is not the original's own path."""
    module = module_of()
    backbone = backbone_of(module)
    part = part_of(module)
    condition = backbone.condition(part)
    calls: list[int] = []
    assert isinstance(module.reference, TextToImage)
    module.reference.unet.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    source = StoredTrajectories(count=1, num_inference_steps=5, guidance_scale=2.0)
    first, _ = source(module, part, condition)
    paid = sum(calls)
    for visit in range(1, 4):
        again = part_of(module, visit=visit)
        source(module, again, backbone.condition(again))
    assert sum(calls) == paid
    distinct = len({row.numpy().tobytes() for row in condition.states.detach()})
    assert paid == distinct * 4 * 2, "four steps of a guidance pair for each prompt"
    assert torch.isfinite(first).all()


def test_a_classifier_has_no_latents() -> None:
    """Fails when a wrong backbone ends in an AttributeError."""
    module = FineTune(classifier())
    with pytest.raises(InputError, match="not from a Classifier"):
        PartialSampling(4).draw(module, {}, None, "x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 2"):
        PartialSampling(1)
