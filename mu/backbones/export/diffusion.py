"""Export of diffusion models: diffusers folders, edited tensors, low-rank adapters; model cards."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mu.backbones.diffusion.class_conditional import ClassConditionalDiffusion
from mu.backbones.diffusion.schedulers import make_scheduler
from mu.backbones.diffusion.text_to_image import TextToImage
from mu.backbones.export.base import Form, export
from mu.backbones.export.card import (
    hub_id,
    images_note,
    model_card,
    new_folder,
    only_whole,
    remove_local_paths,
    usage_with_base,
)
from mu.backbones.export.diffusion_adapter import write_adapter
from mu.backbones.export.published import (
    publish_tokenizer,
    rename_weights,
    text_model_name,
)
from mu.backbones.export.single_file import FILE as SINGLE_FILE
from mu.backbones.export.single_file import compvis_state
from mu.utils.errors import InputError
from mu.utils.files import save_tensors, write_text
from mu.utils.spec import init_args_of
from mu.utils.version import __version__

CARD = """---
{{ card_data }}
---

# {{ title }}

{{ what }}{{ history }}. Written by mu {{ version }}.

{{ about }}

## Use

```python
{{ usage }}
```

`FOLDER` is this folder.
"""
_WHOLE = """from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("FOLDER")
image = pipeline("a prompt", num_inference_steps={steps}, guidance_scale={scale}).images[0]"""
_EDITED = """from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

pipeline = StableDiffusionPipeline.from_pretrained("{base}", safety_checker=None)
edited = load_file("FOLDER/model.safetensors")
for part in sorted({{name.split(".")[0] for name in edited}}):
    own = {{name.removeprefix(f"{{part}}."): value for name, value in edited.items() if name.startswith(f"{{part}}.")}}
    assert not getattr(pipeline, part).load_state_dict(own, strict=False).unexpected_keys

# or, with mu, which also checks that the base model is the same:
# backbone = mu.backbones.TextToImage("{base}", weights="FOLDER")"""  # noqa: E501 - a line of the card stays one line
_SINGLE_FILE = """from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_single_file(
    "FOLDER/model.safetensors", prediction_type="{prediction}"
)"""
CLASS_USAGE = """from mu.backbones import ClassConditionalDiffusion

model = ClassConditionalDiffusion("FOLDER")
images = model.generate(model.labels([0, 1, 2, 3]), seeds=[0, 1, 2, 3])"""


@export.register
def export_text_to_image(
    backbone: TextToImage,
    folder: Path | str,
    form: Form = "model",
    results: Mapping[str, Any] | None = None,
    title: str | None = None,
    license: str | None = None,
) -> Path:
    """Write a text-to-image model as a diffusers folder, one file, edited tensors, or adapters.

    Forms are `model`, a folder for `StableDiffusionPipeline.from_pretrained`; `edited`, the file
    `model.safetensors` with the tensors of `edited_tensors`; `adapter`, the low-rank adapters for
    `load_lora_weights`; `single-file`, the whole model in `model.safetensors` by CompVis' names.

    Args:
        backbone: the served model; its adapters are folded in where the form is not `adapter`, on a
            copy.
        folder: output folder; new or empty.
        form: exported form.
        results: `method`, `task`, `concept` and `metrics`, for the card, see
            `mu.backbones.export.export`.
        title: heading of the card; the folder's name when None.
        license: licence of the weights.

    Returns:
        The folder.

    Raises:
        InputError: when the folder is not empty, or the model has no adapters, or no original that
            could be read again.
    """
    folder = Path(folder)
    results = dict(results or {})
    with new_folder(folder) as temporary:
        about, usage = {
            "model": _write_pipeline,
            "edited": _write_edited,
            "adapter": write_adapter,
            "single-file": _write_single_file,
        }[form](backbone, temporary, results)
        what = {
            "model": f"`{backbone.model}`",
            "edited": f"Tensors to be put into `{backbone.model}`",
            "adapter": f"Adapters of `{backbone.model}`",
            "single-file": f"`{backbone.model}`",
        }[form]
        write_text(
            temporary / "README.md",
            _card(
                results,
                title or folder.name,
                license,
                kind="text-to-image",
                base_model=hub_id(backbone.model),
                what=what,
                about=about,
                usage=usage,
            ),
        )
    return folder


@export.register
def export_class_conditional(
    backbone: ClassConditionalDiffusion,
    folder: Path | str,
    form: Form = "model",
    results: Mapping[str, Any] | None = None,
    title: str | None = None,
    license: str | None = None,
) -> Path:
    """Write a class-conditional model as the diffusers folders `unet/` and `scheduler/`.

    Args:
        backbone: the served model.
        folder: output folder; new or empty.
        form: `model`.
        results: results for the card, see `mu.backbones.export.export`.
        title: heading of the card; the folder's name when None.
        license: licence of the weights.

    Returns:
        The folder.

    Raises:
        InputError: when the folder is not empty, or for another form.
    """
    only_whole(backbone, form)
    folder = Path(folder)
    network = backbone.unet
    channels, height, width = backbone.sample_shape
    with new_folder(folder) as temporary:
        network.save_pretrained(temporary / "unet")  # type: ignore[operator]
        settings = backbone.scheduler_config
        scheduler = make_scheduler(str(settings["_class_name"]), settings, {}, {})
        scheduler.save_pretrained(temporary / "scheduler")
        remove_local_paths(temporary)
        write_text(
            temporary / "README.md",
            _card(
                dict(results or {}),
                title or folder.name,
                license,
                kind="unconditional-image-generation",
                what=f"A denoiser of {channels} × {height} × {width} images of "
                f"{backbone.num_classes} classes",
                about=f"`unet/` is a `{type(network).__name__}`, `scheduler/` its noise schedule. "
                "Pixels are scaled to [−1, 1]; class label "
                f"{backbone.num_classes} says nothing (the null label of classifier-free "
                f"guidance).\n\n{images_note(backbone)}",
                usage=CLASS_USAGE,
            ),
        )
    return folder


# ---- files of the folder -------------------------------------------------------------------------


def _write_pipeline(
    backbone: TextToImage, folder: Path, results: Mapping[str, Any]
) -> tuple[str, str]:
    write_pipeline(merged(backbone), folder)
    sampler = backbone.sampler
    return (
        f"A complete pipeline without a safety checker.\n\n{images_note(backbone)}",
        _WHOLE.format(steps=sampler.num_inference_steps, scale=sampler.guidance_scale),
    )


def write_pipeline(backbone: TextToImage, folder: Path, scheduler: Any = None) -> None:
    """Save every component into a folder.

    Args:
        backbone: model without adapters.
        folder: existing folder.
        scheduler: scheduler of diffusers; None takes that of the backbone's sampler.
    """
    pipeline = backbone.pipeline()
    if scheduler is not None:
        pipeline.register_modules(scheduler=scheduler)
    pipeline.save_pretrained(folder)
    # the form in which Stable Diffusion is published, so that earlier versions read it
    rename_weights(folder / "text_encoder", text_model_name)
    publish_tokenizer(backbone.tokenizer, folder / "tokenizer")
    remove_local_paths(folder)


def _write_edited(
    backbone: TextToImage, folder: Path, results: Mapping[str, Any]
) -> tuple[str, str]:
    base = original(backbone)
    tensors = edited_tensors(merged(backbone), base)
    save_tensors(folder / "model.safetensors", tensors, _metadata(backbone, base, results))
    about = (
        f"Only the {len(tensors)} tensors that differ from the base model's (trained part: "
        f"`{backbone.part}`), by their names within "
        "`mu.backbones.TextToImage`: the component, then its own name in diffusers or "
        "transformers. The file's metadata name the "
        f"base model and a hash of its weights.\n\n{images_note(backbone)}"
    )
    return about, usage_with_base(backbone, _EDITED.format(base=backbone.model))


def _write_single_file(
    backbone: TextToImage, folder: Path, results: Mapping[str, Any]
) -> tuple[str, str]:
    base = merged(backbone)
    facts = {"format": "pt", "base_model": hub_id(backbone.model), "method": results.get("method")}
    metadata = {name: str(value) for name, value in facts.items() if value}
    state = compvis_state(base.unet, base.vae, base.text_encoder)
    save_tensors(folder / SINGLE_FILE, state, metadata)
    about = (
        f"`{SINGLE_FILE}` holds the whole model by the names of CompVis' code, as programs that "
        f"take one file read it.\n\n{images_note(backbone)}"
    )
    return about, _SINGLE_FILE.format(prediction=backbone.prediction_type)


# ---- differences from the original ---------------------------------------------------------------


def merged(backbone: TextToImage) -> TextToImage:
    """Copy of the backbone with merged adapters, or the backbone itself if it has none.

    The copy shares all other weights.
    """
    from mu.backbones.lora import merge_adapters

    if backbone.lora is None:
        return backbone
    shared = {
        id(p): p
        for name, p in backbone.named_parameters()
        if ".base_layer." not in name and ".lora_" not in name
    }
    twin = deepcopy(backbone, shared)
    merge_adapters(twin)
    return twin


def original(backbone: TextToImage) -> TextToImage:
    """Base model, loaded again by name, without weights of a run, new weights or adapters.

    Raises:
        InputError: when the backbone was built from live components, which have changed with it.
    """
    arguments = init_args_of(backbone)
    if arguments.get("pipeline") is not None:
        raise InputError(
            "the backbone was built from a live pipeline, so its original cannot be read again; "
            "give it a model by folder or hub id, or export the whole model."
        )
    return type(backbone)(
        **{**arguments, "weights": None, "init_seed": None, "lora": None, "part": "full"}
    )


def edited_tensors(backbone: TextToImage, base: TextToImage) -> dict[str, Tensor]:
    """Tensors that differ in any bit from the base model, by their names in the backbone.

    Raises:
        InputError: when none does.
    """
    original_state = base.state_dict()
    edited_state = {
        name: value
        for name, value in backbone.state_dict().items()
        if not _same(value, original_state[name])
    }
    if not edited_state:
        raise InputError(
            f"no tensor differs from those of {backbone.model}, so there is nothing to write."
        )
    return edited_state


def _same(a: Tensor, b: Tensor) -> bool:
    """Bitwise equality of tensors; unlike `torch.equal`, 0 differs from −0."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    first, second = (
        value.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for value in (a, b)
    )
    return torch.equal(first, second)


def _metadata(
    backbone: TextToImage, base: TextToImage, results: Mapping[str, Any]
) -> dict[str, str]:
    """Metadata of edited tensors as text: base model and its hash, part, method, task."""
    facts = {
        "format": "pt",
        "base_model": backbone.model,
        "base_hash": base.base_hash(),
        "part": backbone.part,
        "dtype": str(base.dtype).removeprefix("torch."),
        "mu": __version__,
        **{name: results.get(name) for name in ("method", "task", "concept")},
    }
    return {name: str(value) for name, value in facts.items() if value}


# ---- cards ---------------------------------------------------------------------------------------


def _card(results: Mapping[str, Any], title: str, license: str | None, **facts: Any) -> str:
    return model_card(
        CARD,
        title=title,
        license=license,
        results=results,
        library_name="diffusers",
        version=__version__,
        **facts,
    )
