"""Components of a Stable Diffusion pipeline, from a folder, a hub id, or a live pipeline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mu.utils.errors import InputError
from mu.utils.hub import reading
from mu.utils.pretrained import load_pretrained

COMPONENTS = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
    "scheduler": "DDIMScheduler",
}
_FURTHER_INPUTS = (
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim",
    "num_class_embeds",
    "time_cond_proj_dim",
)
_FILE_NAME = re.compile(
    r"(diffusion_pytorch_model|model|pytorch_model)(\.(?P<variant>(?!safetensors|bin|index)\w+))?"
    r"(-\d+-of-\d+)?\.(safetensors|bin)(\.index(\.\w+)?\.json)?$"
)
_SECOND_ENCODER = (
    "has a second text encoder (SDXL), which TextToImage does not read yet; take Stable Diffusion "
    "1.x or 2.x."
)


def components_of(pipeline: Any) -> dict[str, Any]:
    """Components of a live pipeline.

    Raises:
        InputError: a component is missing, does not fit the others, or is one too many.
    """
    missing = [name for name in COMPONENTS if getattr(pipeline, name, None) is None]
    if missing:
        raise InputError(
            f"the pipeline has no {missing[0]}; TextToImage takes a StableDiffusionPipeline with "
            f"{', '.join(COMPONENTS)}."
        )
    if getattr(pipeline, "text_encoder_2", None) is not None:
        raise InputError(f"the pipeline {_SECOND_ENCODER}")
    components = {name: getattr(pipeline, name) for name in COMPONENTS}
    check_components(components, "the pipeline")
    return components


def load_components(model: str, dtype: str) -> dict[str, Any]:
    """Components of a pipeline folder or hub id, loaded by the classes that it names.

    Where a folder's files are all of one variant (`*.fp16.safetensors`), those are read.

    Raises:
        InputError: a component is missing, cannot be read, or does not fit the others.
    """
    import diffusers
    import transformers

    folder = _folder(model)
    index = _component_classes(folder, model)
    missing = [name for name in COMPONENTS if name not in index]
    if missing:
        raise InputError(
            f"{model} is a pipeline without a {missing[0]}; TextToImage needs "
            f"{', '.join(COMPONENTS)}."
        )
    if "text_encoder_2" in index:
        raise InputError(f"{model} {_SECOND_ENCODER}")
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype):
        raise InputError(f"there is no dtype {dtype!r}; float32, bfloat16 and float16 are some.")
    components = {}
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()  # a bar for every component
    for name in COMPONENTS:
        component_class = _component_class(index[name], name, model)
        if name in ("tokenizer", "scheduler"):
            with reading(f"the {name}", folder, RuntimeError):
                components[name] = component_class.from_pretrained(folder, subfolder=name)
        else:
            key = "torch_dtype" if index[name][0] == "diffusers" else "dtype"
            components[name] = _load_network(component_class, folder, name, {key: torch_dtype})
    check_components(components, model)
    return components


def _component_class(entry: Any, name: str, model: str) -> Any:
    """Class of a component that model_index.json names."""
    import diffusers
    import transformers

    library, class_name = str(entry[0]), entry[1] if len(entry) > 1 else None
    source = diffusers if library == "diffusers" else transformers
    cls = getattr(source, class_name, None) if isinstance(class_name, str) else None
    if not isinstance(cls, type) or not hasattr(cls, "from_pretrained"):
        raise InputError(
            f"{model} names {class_name} of {library} as its {name}, which is no such class of the "
            f"installed {library}; install the version that wrote the folder."
        )
    return cls


def _load_network(cls: Any, folder: str, name: str, options: Mapping[str, Any]) -> Any:
    """UNet, image encoder or text encoder, of the variant whose files there are."""
    local = Path(folder).is_dir()
    variant = file_variant(Path(folder) / name) if local else None
    extra = {} if variant is None else {"variant": variant}
    try:
        return load_pretrained(cls, folder, f"the {name}", subfolder=name, **options, **extra)
    except InputError as error:
        if local:
            raise
        try:  # a hub id without whole files may have those of half precision
            return load_pretrained(
                cls, folder, f"the {name}", subfolder=name, variant="fp16", **options
            )
        except InputError:
            raise error from None


def file_variant(folder: Path) -> str | None:
    """Variant of a component's files (`fp16`), None where there are files without one.

    Raises:
        InputError: the files are of several variants, and none is without one.
    """
    names = [
        file.name
        for suffix in ("safetensors", "safetensors.index.json", "bin", "bin.index.json")
        for file in folder.glob(f"*.{suffix}")
    ]
    matches = [_FILE_NAME.match(name) for name in names]
    variants = {match["variant"] for match in matches if match}
    if not variants or None in variants:
        return None
    if len(variants) > 1:
        raise InputError(
            f"{folder} has files of the variants {', '.join(sorted(variants))} alone; leave those "
            "of one."
        )
    return str(variants.pop())


def check_components(components: Mapping[str, Any], model: str) -> None:
    """Check that the UNet is one of Stable Diffusion, and fits image and text encoder.

    Raises:
        InputError: the UNet reads other inputs than latents, time steps and hidden states.
    """
    unet = components["unet"].config
    latents = components["vae"].config.latent_channels
    if (unet.in_channels, unet.out_channels) != (latents, latents):
        of_other_task = ", as those for inpainting" if unet.in_channels == 2 * latents + 1 else ""
        raise InputError(
            f"the unet of {model} reads {unet.in_channels} channels and gives "
            f"{unet.out_channels}, where the vae has {latents}{of_other_task}; TextToImage takes "
            "a text-to-image model."
        )
    further = [name for name in _FURTHER_INPUTS if getattr(unet, name, None) is not None]
    if further:
        raise InputError(
            f"the unet of {model} has {further[0]} {getattr(unet, further[0])!r}, an input that "
            "TextToImage does not give; take Stable Diffusion 1.x or 2.x."
        )
    width = components["text_encoder"].config.hidden_size
    widths = unet.cross_attention_dim
    if any(value != width for value in (widths if isinstance(widths, list | tuple) else [widths])):
        raise InputError(
            f"the unet of {model} reads text of width {widths} and its text encoder gives "
            f"{width}; they belong to two models."
        )


def _folder(model: str) -> str:
    if not model.startswith("embedded:"):
        return model
    from mu.backbones.embedded import path

    return str(path(model.removeprefix("embedded:")))


def _component_classes(folder: str, model: str) -> Mapping[str, Any]:
    from diffusers import DiffusionPipeline

    if Path(folder).is_file():
        raise InputError(
            f"{model} is one file; turn it into a folder with `mu import {model} FOLDER --base "
            "BASE`, where BASE is a model of the same architecture."
        )
    if Path(folder).is_dir() and not (Path(folder) / "model_index.json").is_file():
        raise InputError(
            f"the folder {model} has no model_index.json, so it is not a diffusers pipeline; save "
            "one with pipeline.save_pretrained, or import a CompVis checkpoint first."
        )
    with reading("the pipeline", folder):
        index = DiffusionPipeline.load_config(folder)
    assert isinstance(index, Mapping)
    return {
        name: value
        for name, value in index.items()
        if isinstance(value, Sequence | Iterable)
        and not isinstance(value, str)
        and next(iter(value)) in ("diffusers", "transformers")
    }
