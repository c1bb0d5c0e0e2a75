"""Names of a Stable Diffusion in CompVis' code, converted by the functions of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mu.backbones.diffusion.compvis_file import COMPONENT_OF, Tensors, first_names
from mu.utils.errors import InputError


def converted(parts: Mapping[str, Tensors], backbone: Any, file: Path) -> dict[str, Tensors]:
    """State dicts of the components in a file, with the names of diffusers and transformers.

    Components are `unet`, `vae` and `text_encoder`.

    Raises:
        InputError: for a tensor that the conversion does not use.
    """
    from diffusers.loaders import single_file_utils as names

    unet = backbone.unet
    vae = backbone.vae
    text = backbone.text_encoder
    converters = {
        "unet": lambda own: names.convert_ldm_unet_checkpoint(
            _under("model.diffusion_model.", own), unet.config
        ),
        "vae": lambda own: names.convert_ldm_vae_checkpoint(
            _under("first_stage_model.", own), vae.config
        ),
        "open_clip": lambda own: names.convert_open_clip_checkpoint(
            text, _under("cond_stage_model.model.", own)
        ),
        "text": dict,
        "diffusers": dict,
    }
    state_dicts: dict[str, Tensors] = {}
    for part_name, component in COMPONENT_OF.items():
        if not parts[part_name]:
            continue
        try:
            tensors = converters[part_name](parts[part_name])
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            raise InputError(
                f"the {component} in {file} has not the names of a whole model of CompVis "
                f"({type(error).__name__}: {error}); it may be cut off."
            ) from error
        _check_used(parts[part_name], tensors, part_name, f"the {component} in {file}")
        state_dicts[component] = (
            {name.removeprefix("text_model."): value for name, value in tensors.items()}
            if component == "text_encoder"
            else tensors
        )
    return state_dicts


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: value for name, value in tensors.items()}


def _check_used(given: Tensors, made: Tensors, kind: str, what: str) -> None:
    """Check that the conversion used every tensor; that of diffusers ignores unknown names."""
    from diffusers.loaders.single_file_utils import SD_2_TEXT_ENCODER_KEYS_TO_IGNORE as LAST_LAYER

    used = {value.data_ptr() for value in made.values() if value is not None}
    unused = [name for name, value in given.items() if value.data_ptr() not in used]
    # Stable Diffusion leaves out the last layer and projection; a layer's projections are split,
    # so copied
    if kind == "open_clip":
        ignorable = {name.removeprefix("cond_stage_model.model.") for name in LAST_LAYER} | {
            "logit_scale",
            "text_projection",
        }
        unused = [
            name
            for name in unused
            if name not in ignorable and not name.endswith((".in_proj_weight", ".in_proj_bias"))
        ]
    if unused:
        raise InputError(
            f"{what} has {first_names(unused)}, which no Stable Diffusion has; it may be another "
            "architecture."
        )


def check_schedule(schedule: Tensors, backbone: Any, file: Path) -> None:
    """Check that checkpoint and base agree in noise levels and in the scale of latents."""
    stored_alphas = schedule.get("alphas_cumprod")
    ours = backbone.alphas_cumprod
    if stored_alphas is not None and (
        stored_alphas.shape != ours.shape
        or not torch.allclose(stored_alphas.float(), ours, rtol=1e-3, atol=1e-5)
    ):
        raise InputError(
            f"{file} was trained with other noise levels than the base's scheduler has; give the "
            "base that it was made from."
        )
    scale, vae_scale = schedule.get("scale_factor"), float(backbone.vae.config.scaling_factor)  # type: ignore[union-attr]
    if scale is not None and abs(float(scale) - vae_scale) > 1e-3 * vae_scale:
        raise InputError(
            f"{file} scales latents by {float(scale):.5g} and the base by {vae_scale:.5g}; give "
            "the "
            "base that it was made from."
        )
