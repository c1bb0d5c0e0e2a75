"""Checkpoints with CompVis' names and their import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mu.backbones import TextToImage
from tests.support.compvis_names import (
    State,
    text_names,
    under,
    unet_names,
    vae_names,
)
from tests.support.doubles import STEPS, pipeline_folder, text_to_image

PARTS = ("unet", "vae", "text_encoder")


def states(model: Any) -> dict[str, State]:
    return {
        part: {
            name: value.detach().clone()
            for name, value in getattr(model, part).state_dict().items()
        }
        for part in PARTS
    }


def others(seed: int, base: str | None = None) -> dict[str, State]:
    """Weights of the same shapes, all of them different."""
    generator = torch.Generator().manual_seed(seed)
    return {
        part: {name: torch.randn(value.shape, generator=generator) for name, value in state.items()}
        for part, state in states(TextToImage(base or pipeline_folder())).items()
    }


def whole(weights: dict[str, State], layers: int = 1, blocks: int = 2) -> State:
    """A checkpoint as CompVis' code saves it, with buffers of the schedule."""
    model = text_to_image()
    return {
        **under("model.diffusion_model.", unet_names(weights["unet"], layers)),
        **under("first_stage_model.", vae_names(weights["vae"], blocks)),
        **under("cond_stage_model.transformer.", text_names(weights["text_encoder"])),
        "alphas_cumprod": model.alphas_cumprod.clone(),
        "betas": torch.zeros(STEPS),
        "scale_factor": torch.tensor(0.18215),
    }


Import = Callable[..., tuple[int, str]]


def assert_same(folder: Path, wanted: dict[str, State]) -> None:
    imported = states(TextToImage(str(folder)))
    for part in PARTS:
        assert imported[part].keys() == wanted[part].keys()
        assert [
            name
            for name, value in wanted[part].items()
            if not torch.equal(value, imported[part][name])
        ] == [], part
