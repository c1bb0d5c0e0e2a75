"""Import of Stable Diffusion checkpoints with CompVis' names into a diffusers folder.

Supported files, also the fragments as which erased models are published: a whole checkpoint
(`model.diffusion_model.*`, `first_stage_model.*`, `cond_stage_model.*`, perhaps a moving average
`model_ema.*`); the state dict of a UNet alone, with or without its prefix, in CompVis' or in
diffusers' names; a text encoder alone, also as AdvUnlearn saves it, with every weight under two
names. Names are converted by diffusers' own functions; every tensor of the file must be used, or be
listed as unused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mu.backbones.diffusion.compvis_file import Tensors, first_names, sort_tensors
from mu.backbones.diffusion.compvis_names import check_schedule, converted
from mu.utils.errors import InputError
from mu.utils.version import __version__


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
    from mu.utils.weights import load_weights

    checkpoint = Path(checkpoint)
    folder = Path(folder)
    with new_folder(folder) as temporary:
        parts, copy = sort_tensors(load_weights(checkpoint)[0], checkpoint, ema)
        backbone = TextToImage(base)
        state_dicts = converted(parts, backbone, checkpoint)
        check_schedule(parts["schedule"], backbone, checkpoint)
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
                what="Stable Diffusion from a checkpoint in CompVis' names",
                about=f"Taken are {sentence}. Without a safety checker.",
                usage="from diffusers import StableDiffusionPipeline\n\npipeline = "
                'StableDiffusionPipeline.from_pretrained("FOLDER")',
            ),
        )
    return sentence


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
