"""Samplers against the pipelines of diffusers, for each scheduler class that a folder may name."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch

from mu.backbones import ClassConditionalDiffusion, TextToImage
from mu.backbones.diffusion.sampler import Sampler
from mu.backbones.diffusion.schedulers import make_scheduler, scheduler_settings
from mu.backbones.export import export
from mu.utils.errors import InputError
from tests.support.doubles import class_conditional, pipeline_folder

SCHEDULERS = (
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
FAST = ("DDIMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler", "PNDMScheduler")
TABLE = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in SCHEDULERS]
PROMPTS = ["a red circle", "a star"]
SEEDS = [11, 12]


def folder_with(scheduler: dict[str, Any], folder: Path) -> str:
    """The tiny Stable Diffusion with another scheduler_config.json."""
    copytree(pipeline_folder(), folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(scheduler))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    (folder / "model_index.json").write_text(json.dumps(index))
    return str(folder)


def pipeline_images(
    folder: str | Path, steps: int = 5, guidance_scale: float = 4.0
) -> torch.Tensor:
    """Images of the pipeline that diffusers loads, for PROMPTS and SEEDS."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        PROMPTS,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="pt",
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        height=8,
        width=8,
    ).images
    return images.float()


@pytest.mark.parametrize("name", TABLE)
def test_generated_images_are_those_of_the_folder_and_of_the_export(
    name: str, tmp_path: Path
) -> None:
    """Fails when a setting that the folder leaves out has another default here than in the
    pipeline, or a scheduler's own noise comes from another generator.
    """
    folder = folder_with({"_class_name": name}, tmp_path / "model")
    backbone = TextToImage(
        folder, sampler=Sampler(name, num_inference_steps=5, guidance_scale=4.0)
    ).eval()
    images = backbone.generate_prompts(PROMPTS, SEEDS)
    assert torch.allclose(images, pipeline_images(folder), atol=1e-4)
    export(backbone, tmp_path / "export")
    assert torch.allclose(images, pipeline_images(tmp_path / "export"), atol=1e-4)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_another_sampler_keeps_the_noise_schedule_of_the_model(name: str) -> None:
    """Fails when betas that the folder leaves to its class become those of another class."""
    import diffusers

    cls = getattr(diffusers, name)
    settings = scheduler_settings(cls.from_config({}))
    scheduler = make_scheduler("DDIMScheduler", settings, {}, {})
    assert torch.equal(scheduler.alphas_cumprod, cls().alphas_cumprod)
    assert scheduler.config.timestep_spacing == "leading"


def test_the_default_sampler_draws_as_the_export_does(tmp_path: Path) -> None:
    """Fails when a folder of another scheduler's betas is sampled with those of DDIM."""
    folder = folder_with({"_class_name": "HeunDiscreteScheduler"}, tmp_path / "model")
    backbone = TextToImage(
        folder, sampler=Sampler(num_inference_steps=5, guidance_scale=4.0)
    ).eval()
    export(backbone, tmp_path / "export")
    images = backbone.generate_prompts(PROMPTS, SEEDS)
    assert torch.allclose(images, pipeline_images(tmp_path / "export"), atol=1e-4)


def test_options_outweigh_defaults_of_the_folder(tmp_path: Path) -> None:
    """Fails when an option is dropped where the folder leaves it to its class."""
    folder = folder_with({"_class_name": "DDIMScheduler"}, tmp_path / "model")
    sampler = Sampler(
        num_inference_steps=5, guidance_scale=4.0, options={"timestep_spacing": "trailing"}
    )
    backbone = TextToImage(folder, sampler=sampler).eval()
    assert backbone.sampler.make(backbone).timesteps.tolist() == [999, 799, 599, 399, 199]
    export(backbone, tmp_path / "export")
    images = backbone.generate_prompts(PROMPTS, SEEDS)
    assert torch.allclose(images, pipeline_images(tmp_path / "export"), atol=1e-4)


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "LCMScheduler"])
def test_a_class_conditional_export_draws_the_same_images(name: str, tmp_path: Path) -> None:
    """Fails when a folder's scheduler gets the defaults of another class."""
    import diffusers

    source = tmp_path / "model"
    export(class_conditional(), source)
    (source / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": name}))
    backbone = ClassConditionalDiffusion(
        str(source), sampler=Sampler(name, num_inference_steps=4)
    ).eval()
    assert torch.equal(backbone.alphas_cumprod, getattr(diffusers, name)().alphas_cumprod)
    export(backbone, tmp_path / "export")
    again = ClassConditionalDiffusion(
        str(tmp_path / "export"), sampler=Sampler(name, num_inference_steps=4)
    ).eval()
    condition = backbone.labels([1, 2])
    assert torch.equal(backbone.generate(condition, SEEDS), again.generate(condition, SEEDS))


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        ("DDIM", {}, "no scheduler 'DDIM'"),
        ("FlowMatchEulerDiscreteScheduler", {}, "does not take the noise schedule"),
        ("DPMSolverSDEScheduler", {}, "cannot be used"),
        ("CogVideoXDPMScheduler", {}, "cannot be used"),
        ("DDIMInverseScheduler", {}, "cannot be used"),
        ("DDIMScheduler", {"spacing": "trailing"}, "no option 'spacing'"),
        ("DDIMScheduler", {"clip_sample": True}, "clip_sample"),
        ("LCMScheduler", {"original_inference_steps": 2}, "LCMScheduler"),
    ],
)
def test_a_sampler_that_cannot_draw_is_refused(
    scheduler: str, options: dict[str, Any], message: str
) -> None:
    """Fails when a scheduler of another kind of model answers with an exception of its own."""
    backbone = TextToImage(pipeline_folder())
    with pytest.raises(InputError, match=message):
        Sampler(scheduler, num_inference_steps=3, options=options).make(backbone)


def test_a_flow_model_is_refused(tmp_path: Path) -> None:
    """Fails when a folder whose scheduler has no betas is read as a noise predictor."""
    folder = folder_with({"_class_name": "FlowMatchEulerDiscreteScheduler"}, tmp_path / "model")
    with pytest.raises(InputError, match="noise schedule"):
        TextToImage(folder)
