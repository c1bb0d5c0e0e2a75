"""Reading Stable Diffusion checkpoints in CompVis' names (and the fragments that erased models are
published as) into a diffusers folder.

Files that are understood: a whole checkpoint (`model.diffusion_model.*`, `first_stage_model.*`,
`cond_stage_model.*`, perhaps a moving average `model_ema.*`); the state dict of a UNet alone, with
or without its prefix, in CompVis' or in diffusers' names; a text encoder alone, also as AdvUnlearn
saves it, with every weight under two names. Names are converted by diffusers' own functions; every
tensor of the file must be used, or be one that is known to be of no use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mu.utils.errors import InputError
from mu.utils.version import __version__

if TYPE_CHECKING:
    from mu.backbones import TextToImage

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
"""Tensors of a checkpoint that are no weights."""
_PARTS = {  # prefix -> kind, and what remains of the prefix; the first that fits
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
_PLACES = {
    "unet": "unet",
    "diffusers": "unet",
    "vae": "vae",
    "text": "text_encoder",
    "open_clip": "text_encoder",
}
_SHOWN = 3


def import_compvis(
    checkpoint: Path | str, folder: Path | str, base: str, ema: bool | None = None
) -> str:
    """Write a diffusers folder with the weights of a checkpoint; what the checkpoint lacks is the
    base's.

    Args:
        checkpoint: safetensors, or a torch file without objects.
        folder: where to; new or empty.
        base: folder or hub id of a pipeline of the same architecture.
        ema: take the UNet's moving average, or the trained weights; must be said where the file has
            both.

    Returns:
        One sentence: what was taken from where.

    Raises:
        InputError: when the file cannot be read safely, leaves the choice open, or does not fit the
            base.
    """
    import diffusers

    from mu.backbones import TextToImage
    from mu.backbones.diffusion.text_to_image import COMPONENTS
    from mu.backbones.export.card import hub_id, model_card, new_folder
    from mu.backbones.export.diffusion import CARD, write_pipeline
    from mu.utils.files import write_text

    checkpoint = Path(checkpoint)
    folder = Path(folder)
    with new_folder(folder) as temporary:
        parts, copy = sorted_parts(checkpoint, ema)
        backbone = TextToImage(base)
        found = converted(parts, backbone, checkpoint)
        _check_schedule(parts["schedule"], backbone, checkpoint)
        # edited tensors alone are published in diffusers' names
        for (
            name,
            tensors,
        ) in found.items():
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
        taken = [f"{name} ({copy})" if name == "unet" and copy else name for name in found]
        others = [name for name in COMPONENTS if name not in found]
        sentence = f"{', '.join(taken)} from {checkpoint.name}; {', '.join(others)} from {base}"
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


# ---- what is in the file -------------------------------------------------------------------------


def sorted_parts(file: Path, ema: bool | None) -> tuple[dict[str, Tensors], str]:
    """The tensors by what they are, and which copy of the UNet was taken (empty where there is
    one).

    They are `unet`, `vae`, `text` and `open_clip` in CompVis' names without prefixes, `diffusers`
    (a UNet in those names) and `schedule`.

    Raises:
        InputError: for a file that cannot be read, a tensor that is not known, two copies that
            differ, and a choice that is not made.
    """
    from mu.utils.weights import load_weights

    parts: dict[str, Tensors] = {
        kind: {}
        for kind in ("unet", "average", "vae", "text", "open_clip", "diffusers", "schedule")
    }
    strange = []
    for name, tensor in load_weights(file)[0].items():
        prefix = next((prefix for prefix in _PARTS if name.startswith(prefix)), None)
        if name in _SCHEDULE:
            parts["schedule"][name] = tensor
        elif prefix is None:
            strange.append(name)
        elif not name.endswith("position_ids"):
            # 0, 1, 2, ...: older versions of transformers saved them
            kind, kept = _PARTS[prefix]
            _put(parts[kind], kept + name.removeprefix(prefix), tensor, file)
    if strange:
        raise InputError(
            f"{file} has {_some(strange)}, which belongs to no Stable Diffusion checkpoint; take "
            "out what is no weight of the UNet, the VAE or the text encoder."
        )
    for one, other in (("unet", "diffusers"), ("text", "open_clip")):
        if parts[one] and parts[other]:
            raise InputError(
                f"{file} holds the {_PLACES[one]} in two ways of naming, so it is not clear which "
                "one is meant."
            )
    copy = _choose(parts, ema, file)
    if not any(parts[kind] for kind in _PLACES):
        raise InputError(f"{file} holds no weights of a UNet, a VAE or a text encoder.")
    return parts, copy


def _put(part: Tensors, name: str, tensor: Tensor, file: Path) -> None:
    """AdvUnlearn's files have each weight of the text encoder twice."""
    if name.startswith("embedding."):
        name = name.replace("embedding.", "embeddings.", 1)
    known = part.setdefault(name, tensor)
    if known is not tensor and not torch.equal(known, tensor):
        raise InputError(
            f"{file} holds two copies of {name} that differ, so it is not clear which one is meant."
        )


def _choose(parts: dict[str, Tensors], ema: bool | None, file: Path) -> str:
    """Put the moving average in the UNet's place where that was asked for."""
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
            "(model_ema.*); say which with --no-ema or --ema. (In SalUn's released files the "
            "average is the original model, so those need --no-ema.)"
        )
    if not ema:
        return "the trained weights"
    flat = {name: "diffusion_model" + name.replace(".", "") for name in parts["unet"]}
    lacks = [name for name, key in flat.items() if key not in average]
    extra = sorted(set(average) - set(flat.values()))
    if lacks or extra:
        raise InputError(
            f"the moving average in {file} is not of its UNet: it {'lacks' if lacks else 'has'} "
            f"{_some(lacks or extra)}."
        )
    parts["unet"] = {name: average[key] for name, key in flat.items()}
    return "the moving average"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (
        f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    )


# ---- names ---------------------------------------------------------------------------------------


def converted(
    parts: Mapping[str, Tensors], backbone: TextToImage, file: Path
) -> dict[str, Tensors]:
    """The components that the file has (`unet`, `vae`, `text_encoder`), by the names of diffusers
    and transformers.

    Raises:
        InputError: for a tensor that the conversion has no use for.
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
    found: dict[str, Tensors] = {}
    for kind, place in _PLACES.items():
        if not parts[kind]:
            continue
        try:
            tensors = converters[kind](parts[kind])
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            raise InputError(
                f"the {place} in {file} has not the names of a whole model of CompVis "
                f"({type(error).__name__}: {error}); it may be cut off."
            ) from error
        _check_used(parts[kind], tensors, kind, f"the {place} in {file}")
        found[place] = (
            {name.removeprefix("text_model."): value for name, value in tensors.items()}
            if place == "text_encoder"
            else tensors
        )
    return found


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: value for name, value in tensors.items()}


def _check_used(given: Tensors, made: Tensors, kind: str, what: str) -> None:
    """Diffusers' functions pass over names that they do not know."""
    from diffusers.loaders.single_file_utils import SD_2_TEXT_ENCODER_KEYS_TO_IGNORE as LAST_LAYER

    used = {value.data_ptr() for value in made.values() if value is not None}
    left = [name for name, value in given.items() if value.data_ptr() not in used]
    # its last layer and projection are not Stable Diffusion's; a layer's projections are taken
    # apart, so copied
    if kind == "open_clip":
        known = {name.removeprefix("cond_stage_model.model.") for name in LAST_LAYER} | {
            "logit_scale",
            "text_projection",
        }
        left = [
            name
            for name in left
            if name not in known and not name.endswith((".in_proj_weight", ".in_proj_bias"))
        ]
    if left:
        raise InputError(
            f"{what} has {_some(left)}, which no Stable Diffusion has; it may be another "
            "architecture."
        )


# ---- into the base -------------------------------------------------------------------------------


def _assign(network: Any, tensors: Tensors, what: str, base: str, partial: bool) -> int:
    """Copy into the network; how many of its tensors were not given (0 unless `partial`)."""
    own = network.state_dict()
    # transformers before 5.6
    inner = "text_model." if any(name.startswith("text_model.") for name in own) else ""
    given = {inner + name: value for name, value in tensors.items()}
    lacks = [name for name in own if name not in given and not name.endswith("position_ids")]
    extra = [name for name in given if name not in own]
    wrong = [
        f"{name} of shape {list(value.shape)} where the base has {list(own[name].shape)}"
        for name, value in given.items()
        if name in own and own[name].shape != value.shape
    ]
    if (lacks and not partial) or extra or wrong:
        fault = (
            f"holds {_some(wrong)}"
            if wrong
            else f"has {_some(extra)}, which the base has not"
            if extra
            else f"lacks {_some(lacks)}"
        )
        raise InputError(
            f"{what} does not fit --base {base}: it {fault}; give the base that it was made from."
        )
    with torch.no_grad():
        for name, value in given.items():
            own[name].copy_(value)
    return len(lacks)


def _check_schedule(schedule: Tensors, backbone: TextToImage, file: Path) -> None:
    """Noise levels and the scale of latents are the base's, so they must be the checkpoint's
    too.
    """
    kept = schedule.get("alphas_cumprod")
    ours = backbone.alphas_cumprod
    if kept is not None and (
        kept.shape != ours.shape or not torch.allclose(kept.float(), ours, rtol=1e-3, atol=1e-5)
    ):
        raise InputError(
            f"{file} was trained with other noise levels than the base's scheduler has; give the "
            "base that it was made from."
        )
    scale, own = schedule.get("scale_factor"), float(backbone.vae.config.scaling_factor)  # type: ignore[union-attr]
    if scale is not None and abs(float(scale) - own) > 1e-3 * own:
        raise InputError(
            f"{file} scales latents by {float(scale):.5g} and the base by {own:.5g}; give the "
            "base that it was made from."
        )
