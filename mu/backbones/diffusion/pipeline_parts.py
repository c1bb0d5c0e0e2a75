"""Components of a Stable Diffusion pipeline, from a folder, a hub id, or a live pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mu.utils.errors import InputError
from mu.utils.hub import reading

COMPONENTS = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
    "scheduler": "DDIMScheduler",
}
_SECOND_ENCODER = (
    "has a second text encoder (SDXL), which TextToImage does not read yet; take Stable Diffusion "
    "1.x or 2.x."
)


def components_of(pipeline: Any) -> dict[str, Any]:
    """Components of a live pipeline.

    Raises:
        InputError: a component is missing, or there is a second text encoder.
    """
    missing = [name for name in COMPONENTS if getattr(pipeline, name, None) is None]
    if missing:
        raise InputError(
            f"the pipeline has no {missing[0]}; TextToImage takes a StableDiffusionPipeline with "
            f"{', '.join(COMPONENTS)}."
        )
    if getattr(pipeline, "text_encoder_2", None) is not None:
        raise InputError(f"the pipeline {_SECOND_ENCODER}")
    return {name: getattr(pipeline, name) for name in COMPONENTS}


def load_components(model: str, dtype: str) -> dict[str, Any]:
    """Components of a pipeline folder or hub id, loaded by the classes that it names.

    Raises:
        InputError: a component is missing, or the pipeline cannot be read.
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
        library, cls = index[name]
        component_class: Any = getattr(
            {"diffusers": diffusers, "transformers": transformers}[library], cls
        )
        dtype_argument = (
            {}
            if name in ("tokenizer", "scheduler")
            else {"torch_dtype" if library == "diffusers" else "dtype": torch_dtype}
        )
        with reading(f"the {name}", folder, RuntimeError):
            components[name] = component_class.from_pretrained(
                folder, subfolder=name, **dtype_argument
            )
    return components


def _folder(model: str) -> str:
    if not model.startswith("embedded:"):
        return model
    from mu.backbones.embedded import path

    return str(path(model.removeprefix("embedded:")))


def _component_classes(folder: str, model: str) -> Mapping[str, Any]:
    from diffusers import DiffusionPipeline

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
