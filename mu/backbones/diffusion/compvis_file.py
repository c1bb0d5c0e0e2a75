"""Tensors of a Stable Diffusion checkpoint in CompVis' names, sorted by component."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mu.utils.errors import InputError

Tensors = dict[str, Tensor]
_SCHEDULE = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "lvlb_weights",
        "logvar",
        "scale_factor",
        "model_ema.decay",
        "model_ema.num_updates",
    }
)
"""Tensors of a checkpoint that are not weights."""
_PARTS = {  # prefix -> component, and the rest of the prefix that stays; the first match counts
    "model_ema.": ("average", ""),
    "model.diffusion_model.": ("unet", ""),
    "diffusion_model.": ("unet", ""),
    "first_stage_model.": ("vae", ""),
    "cond_stage_model.transformer.text_model.": ("text", ""),
    "cond_stage_model.model.": ("open_clip", ""),
    "unet.": ("diffusers", ""),
    "text_encoder.text_model.": ("text", ""),
    "text_encoder.": ("text", ""),
    "text_model.": ("text", ""),
    "embeddings.": ("text", "embeddings."),
    "embedding.": ("text", "embeddings."),
    "encoder.layers.": ("text", "encoder.layers."),
    "final_layer_norm.": ("text", "final_layer_norm."),
    **{
        name: ("unet", name)
        for name in (
            "input_blocks.",
            "middle_block.",
            "output_blocks.",
            "time_embed.",
            "out.",
            "label_emb.",
        )
    },
    **{
        name: ("diffusers", name)
        for name in (
            "conv_in.",
            "conv_out.",
            "conv_norm_out.",
            "time_embedding.",
            "down_blocks.",
            "mid_block.",
            "up_blocks.",
            "add_embedding.",
        )
    },
}
COMPONENT_OF = {
    "unet": "unet",
    "diffusers": "unet",
    "vae": "vae",
    "text": "text_encoder",
    "open_clip": "text_encoder",
}
_SHOWN = 3


def sort_tensors(tensors: Tensors, file: Path, ema: bool | None) -> tuple[dict[str, Tensors], str]:
    """Tensors of a file by component, and the copy of the UNet that was taken, if there are two.

    Components are `unet`, `vae`, `text` and `open_clip` in CompVis' names without prefixes,
    `diffusers` (a UNet in those names) and `schedule`.

    Raises:
        InputError: for an unknown tensor, two copies that differ, and
            for `ema=None` when there are two copies of the UNet.
    """
    parts: dict[str, Tensors] = {
        part: {}
        for part in ("unet", "average", "vae", "text", "open_clip", "diffusers", "schedule")
    }
    strange = []
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in _PARTS if name.startswith(prefix)), None)
        if name in _SCHEDULE:
            parts["schedule"][name] = tensor
        elif prefix is None:
            strange.append(name)
        elif not name.endswith("position_ids"):
            # 0, 1, 2, ...: older versions of transformers saved them
            part, stem = _PARTS[prefix]
            _put(parts[part], stem + name.removeprefix(prefix), tensor, file)
    if strange:
        raise InputError(
            f"{file} has {first_names(strange)}, which belongs to no Stable Diffusion checkpoint; "
            "take "
            "out what is no weight of the UNet, the VAE or the text encoder."
        )
    for compvis, alternative in (("unet", "diffusers"), ("text", "open_clip")):
        if parts[compvis] and parts[alternative]:
            raise InputError(
                f"{file} holds the {COMPONENT_OF[compvis]} in two ways of naming, so it is not "
                "clear "
                "which "
                "one is meant."
            )
    copy = _choose(parts, ema, file)
    if not any(parts[part] for part in COMPONENT_OF):
        raise InputError(f"{file} holds no weights of a UNet, a VAE or a text encoder.")
    return parts, copy


def _put(part: Tensors, name: str, tensor: Tensor, file: Path) -> None:
    """Store a tensor; equal copies under a second name are allowed, as in AdvUnlearn's files."""
    if name.startswith("embedding."):
        name = name.replace("embedding.", "embeddings.", 1)
    stored = part.setdefault(name, tensor)
    if stored is not tensor and not torch.equal(stored, tensor):
        raise InputError(
            f"{file} holds two copies of {name} that differ, so it is not clear which one is meant."
        )


def _choose(parts: dict[str, Tensors], ema: bool | None, file: Path) -> str:
    """Replace the UNet by its moving average where `ema` is True; name of the copy taken."""
    average = parts.pop("average")
    if not average:
        if ema:
            raise InputError(f"{file} holds no moving average (model_ema.*); leave --ema out.")
        return ""
    if not parts["unet"]:
        raise InputError(
            f"{file} holds a moving average (model_ema.*) without the weights that it is of, "
            "whose names it needs."
        )
    if ema is None:
        raise InputError(
            f"{file} holds two copies of the UNet, the trained weights and their moving average "
            "(model_ema.*); say which to `mu import` with --no-ema or --ema. (In SalUn's released "
            "files the average is the original model, so those need --no-ema.)"
        )
    if not ema:
        return "the trained weights"
    flat = {name: "diffusion_model" + name.replace(".", "") for name in parts["unet"]}
    missing = [name for name, key in flat.items() if key not in average]
    extra = sorted(set(average) - set(flat.values()))
    if missing or extra:
        raise InputError(
            f"the moving average in {file} is not of its UNet: it {'lacks' if missing else 'has'} "
            f"{first_names(missing or extra)}."
        )
    parts["unet"] = {name: average[key] for name, key in flat.items()}
    return "the moving average"


def first_names(names: list[str]) -> str:
    """First three names and the number of further ones, for messages."""
    return ", ".join(names[:_SHOWN]) + (
        f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    )
