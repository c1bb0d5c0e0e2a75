"""Import of Stable Diffusion checkpoints with CompVis' names into a diffusers folder.

Supported files, also the fragments as which erased models are published: a whole checkpoint
(`model.diffusion_model.*`, `first_stage_model.*`, `cond_stage_model.*`, perhaps a moving average
`model_ema.*`); the state dict of a UNet alone, with or without its prefix, in CompVis' or in
diffusers' names; a text encoder alone, also as AdvUnlearn saves it, with every weight under two
names. Names are converted by diffusers' own functions; every tensor of the file must be used, or be
listed as unused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mu.backbones.export.compvis_file import COMPONENT_OF, Tensors, first_names, sort_tensors
from mu.utils.errors import InputError
from mu.utils.version import __version__

if TYPE_CHECKING:
    from mu.backbones import TextToImage


def import_compvis(
    checkpoint: Path | str, folder: Path | str, base: str, ema: bool | None = None
) -> str:
    """Write a diffusers folder with the weights of a checkpoint, and of the base for the rest.

    Args:
        checkpoint: safetensors, or a torch file without objects.
        folder: output folder; new or empty.
        base: folder or hub id of a pipeline of the same architecture.
        ema: take the UNet's moving average, or the trained weights; required where the file has
            both.

    Returns:
        One sentence about the source of each component.

    Raises:
        InputError: when the file cannot be read safely, leaves the choice open, or does not fit the
            base.
    """
    import diffusers

    from mu.backbones import TextToImage
    from mu.backbones.diffusion.pipeline_parts import COMPONENTS
    from mu.backbones.export.card import hub_id, model_card, new_folder
    from mu.backbones.export.diffusion import CARD, write_pipeline
    from mu.utils.files import write_text

    checkpoint = Path(checkpoint)
    folder = Path(folder)
    with new_folder(folder) as temporary:
        parts, copy = sort_tensors(checkpoint, ema)
        backbone = TextToImage(base)
        state_dicts = converted(parts, backbone, checkpoint)
        _check_schedule(parts["schedule"], backbone, checkpoint)
        # edited tensors alone are published in diffusers' names
        for (
            name,
            tensors,
        ) in state_dicts.items():
            lacking = _assign(
                getattr(backbone, name),
                tensors,
                f"the {name} in {checkpoint}",
                base,
                partial=name == "unet" and bool(parts["diffusers"]),
            )
            if lacking:
                copy = f"{len(tensors)} of its {len(tensors) + lacking} tensors"
        settings = backbone.scheduler_config
        scheduler: Any = getattr(
            diffusers, str(settings.get("_class_name", "DDIMScheduler"))
        ).from_config(settings)
        write_pipeline(backbone, temporary, scheduler)
        imported = [f"{name} ({copy})" if name == "unet" and copy else name for name in state_dicts]
        missing = [name for name in COMPONENTS if name not in state_dicts]
        sentence = f"{', '.join(imported)} from {checkpoint.name}; {', '.join(missing)} from {base}"
        write_text(
            temporary / "README.md",
            model_card(
                CARD,
                title=folder.name,
                license=None,
                results={},
                kind="text-to-image",
                library_name="diffusers",
                base_model=hub_id(base),
                version=__version__,
                concept=None,
                what="Stable Diffusion from a checkpoint in CompVis' names",
                about=f"Taken are {sentence}. Without a safety checker.",
                usage="from diffusers import StableDiffusionPipeline\n\npipeline = "
                'StableDiffusionPipeline.from_pretrained("FOLDER")',
            ),
        )
    return sentence


# ---- names ---------------------------------------------------------------------------------------


def converted(
    parts: Mapping[str, Tensors], backbone: TextToImage, file: Path
) -> dict[str, Tensors]:
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


# ---- into the base -------------------------------------------------------------------------------


def _assign(network: Any, tensors: Tensors, what: str, base: str, partial: bool) -> int:
    """Copy tensors into a network; number of its other tensors (0 unless `partial`)."""
    state = network.state_dict()
    # transformers before 5.6
    inner = "text_model." if any(name.startswith("text_model.") for name in state) else ""
    prefixed = {inner + name: value for name, value in tensors.items()}
    lacks = [name for name in state if name not in prefixed and not name.endswith("position_ids")]
    extra = [name for name in prefixed if name not in state]
    wrong = [
        f"{name} of shape {list(value.shape)} where the base has {list(state[name].shape)}"
        for name, value in prefixed.items()
        if name in state and state[name].shape != value.shape
    ]
    if (lacks and not partial) or extra or wrong:
        fault = (
            f"holds {first_names(wrong)}"
            if wrong
            else f"has {first_names(extra)}, which the base has not"
            if extra
            else f"lacks {first_names(lacks)}"
        )
        raise InputError(
            f"{what} does not fit --base {base}: it {fault}; give the base that it was made from."
        )
    with torch.no_grad():
        for name, value in prefixed.items():
            state[name].copy_(value)
    return len(lacks)


def _check_schedule(schedule: Tensors, backbone: TextToImage, file: Path) -> None:
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
