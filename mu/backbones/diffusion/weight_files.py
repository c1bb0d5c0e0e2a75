"""Weights of a text-to-image model from a file: whole, edited tensors, adapters, CompVis' names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mu.backbones.base import check_base
from mu.backbones.diffusion.adapters import adapter_file, assign_adapters, is_adapter
from mu.backbones.diffusion.compvis_file import first_names, sort_tensors
from mu.backbones.diffusion.compvis_names import check_schedule, converted
from mu.backbones.lora import base_name
from mu.utils.errors import InputError
from mu.utils.weights import assign_weights, load_weights

_COMPONENTS = ("unet.", "text_encoder.", "vae.")


def assign_file(backbone: Any, weights: str) -> None:
    """Load the weights of a file or folder into a `TextToImage`, and set its `weights_metadata`.

    Args:
        backbone: the model, with its adapters.
        weights: see `TextToImage`.

    Raises:
        InputError: the tensors do not fit the model.
    """
    file = adapter_file(weights)
    tensors, metadata = load_weights(file)
    backbone.weights_metadata = metadata
    if is_adapter(tensors):
        assign_adapters(backbone, file, tensors, metadata)
        return
    _check_edited(backbone, metadata, weights)
    state = backbone.state_dict()
    tensors = component_names(tensors, backbone, file)
    if backbone.lora is not None:  # a layer with an adapter keeps its own weights one level deeper
        deeper = {base_name(name): name for name in state}
        tensors = {deeper.get(name, name): value for name, value in tensors.items()}
    unknown = sorted(set(tensors) - set(state))
    if unknown:
        raise InputError(
            f"{weights} has {unknown[0]}, which {backbone.model} has not; it was saved for "
            "another model."
        )
    assign_weights(backbone, tensors, weights, strict=False)
    absent = {name for name, _ in backbone.named_parameters() if ".lora_" not in name}
    check_base(backbone, absent - set(tensors), metadata, weights)


def _check_edited(backbone: Any, metadata: Mapping[str, Any], weights: str) -> None:
    """Check that edited tensors belong to the backbone's base model."""
    recorded = metadata.get("base_hash")
    if not metadata.get("base_model") or not recorded or recorded == backbone.base_hash():
        return
    dtype = str(backbone.dtype).removeprefix("torch.")
    if metadata.get("dtype", dtype) != dtype:
        raise InputError(
            f"{weights} holds tensors edited in {metadata['dtype']}, and the backbone is in "
            f"{dtype}; give it dtype: {metadata['dtype']}."
        )
    raise InputError(
        f"{weights} holds tensors edited from {metadata['base_model']}, whose weights are not "
        f"those of {backbone.model}; load that model."
    )


def component_names(tensors: Mapping[str, Tensor], backbone: Any, file: Path) -> dict[str, Tensor]:
    """Tensors by their names in the backbone, from those that other programs give them.

    Known are the names of a UNet or text encoder alone, in diffusers or in CompVis' code, and those
    of a whole checkpoint of CompVis. A UNet in its own names of diffusers may be a part, as the
    edited tensors that ESD saves.

    Raises:
        InputError: for an unknown name, and a component that is not complete.
    """
    if all(name.startswith(_COMPONENTS) for name in tensors):
        return {_text_name(name, backbone): value for name, value in tensors.items()}
    parts, _ = sort_tensors(dict(tensors), file, None)
    check_schedule(parts["schedule"], backbone, file)
    renamed: dict[str, Tensor] = {}
    for component, state_dict in converted(parts, backbone, file).items():
        state = {
            _text_name(f"{component}.{name}", backbone): value for name, value in state_dict.items()
        }
        partial = component == "unet" and bool(parts["diffusers"])
        missing = [
            name
            for name in (base_name(key) for key in backbone.state_dict())
            if name.startswith(f"{component}.") and name not in state
            if not name.endswith("position_ids") and ".lora_" not in name
        ]
        if missing and not partial:
            raise InputError(
                f"the {component} in {file} lacks {first_names(missing)}; it was saved for another "
                f"model than {backbone.model}, or is cut off."
            )
        renamed |= state
    return renamed


def _text_name(name: str, backbone: Any) -> str:
    """Name of a weight of the text encoder in the installed transformers.

    Before 5.6, its weights stand below `text_model.`.
    """
    if not name.startswith("text_encoder."):
        return name
    bare = name.removeprefix("text_encoder.").removeprefix("text_model.")
    nested = hasattr(backbone.text_encoder, "text_model")
    return f"text_encoder.{'text_model.' if nested else ''}{bare}"
