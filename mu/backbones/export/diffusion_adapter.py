"""Export of low-rank adapters of a text-to-image model for `load_lora_weights` of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu.backbones.diffusion.adapters import BASE_HASH, FILE
from mu.backbones.diffusion.text_to_image import TextToImage
from mu.backbones.export.card import hub_id, images_note, usage_with_base
from mu.backbones.export.published import text_model_name
from mu.utils.errors import InputError
from mu.utils.files import save_tensors

_ADAPTER = """from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("{base}", safety_checker=None)
pipeline.load_lora_weights("FOLDER")"""


def write_adapter(
    backbone: TextToImage, folder: Path, results: Mapping[str, Any]
) -> tuple[str, str]:
    """Write the adapters of a model into a folder; the card's sentences on them and their use.

    Raises:
        InputError: the model has no adapters.
    """
    from diffusers import StableDiffusionPipeline
    from peft import get_peft_model_state_dict

    if backbone.lora is None:
        raise InputError(
            "the model has no adapters, because it has no lora; export it whole, or with --edited "
            "its edited tensors."
        )
    arguments: dict[str, Any] = {}
    for component in ("unet", "text_encoder"):
        network: Any = getattr(backbone, component)
        if getattr(network, "peft_config", None):
            adapter_state = {
                text_model_name(name) if component == "text_encoder" else name: (
                    value.detach().cpu().contiguous()
                )
                for name, value in get_peft_model_state_dict(network).items()
            }
            arguments |= {
                f"{component}_lora_layers": adapter_state,
                f"{component}_lora_adapter_metadata": _adapter_settings(network),
            }
    StableDiffusionPipeline.save_lora_weights(folder, **arguments)
    _add_metadata(
        folder / FILE, {BASE_HASH: backbone.base_hash(), "base_model": hub_id(backbone.model)}
    )
    about = (
        f"Adapters of rank {backbone.lora.r} in the layers of `{backbone.part}`, as diffusers "
        "and peft read them. Without them the "
        f"model is the original.\n\n{images_note(backbone)}"
    )
    return about, usage_with_base(backbone, _ADAPTER.format(base=backbone.model))


def _add_metadata(file: Path, metadata: Mapping[str, str | None]) -> None:
    """Add entries to the metadata of a safetensors file."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        stored = dict(opened.metadata() or {})
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    save_tensors(file, tensors, stored | {key: value for key, value in metadata.items() if value})


def _adapter_settings(network: Any) -> dict[str, Any]:
    """Settings from which diffusers builds the adapters, for JSON."""
    settings = network.peft_config["default"].to_dict()
    setting_names = (
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "bias",
        "use_rslora",
        "use_dora",
        "init_lora_weights",
    )
    return {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in settings.items()
        if name in setting_names
    }
