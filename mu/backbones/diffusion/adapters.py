"""Files of low-rank adapters for Stable Diffusion, read by diffusers.

Names are those of diffusers (`pytorch_lora_weights.safetensors`), of PEFT, or of other trainers
(`lora_unet_down_blocks_0_..._to_q.lora_down.weight` with `.alpha`, as kohya's and SPM's files).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mu.backbones.lora import LoRA
from mu.utils.errors import InputError
from mu.utils.hub import reading
from mu.utils.pretrained import quiet_libraries

FILE = "pytorch_lora_weights.safetensors"
"""File of adapters in a folder of diffusers."""
BASE_HASH = "mu_base_hash"
"""Key of its metadata: hash of the weights without adapters."""
_NAME = "file"  # of the adapters while they are compared or merged
_NETWORKS = ("unet", "text_encoder")


class AdaptedModel(Protocol):
    """Attributes of `TextToImage` that loading adapters reads."""

    model: str
    lora: LoRA | None
    weights_metadata: dict[str, Any]

    def pipeline(self) -> Any: ...

    def base_hash(self) -> str: ...


def adapter_file(weights: Path | str) -> Path:
    """File of adapters in a folder that has one; any other path as it is."""
    path = Path(weights)
    return path / FILE if (path / FILE).is_file() else path


def is_adapter(names: Iterable[str]) -> bool:
    """Whether tensors are adapters of another program, and not weights of a backbone with adapters.

    >>> is_adapter(["lora_unet_conv_in.lora_down.weight", "lora_unet_conv_in.alpha"])
    True
    >>> is_adapter(["unet.conv_in.lora_A.default.weight"])
    False
    """
    names = list(names)
    marks = ("lora", "hada_", "lokr_", "dora_scale")
    return (
        bool(names)
        and not any(".default." in name or ".base_layer." in name for name in names)
        and all(name.endswith("alpha") or any(mark in name for mark in marks) for name in names)
    )


def assign_adapters(
    backbone: AdaptedModel, file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Put the adapters of a file in place of the backbone's, or merge them if it has none.

    Args:
        backbone: the model, with the layers of its `lora`.
        file: file of adapters.
        tensors: its tensors.
        metadata: its metadata.

    Raises:
        InputError: the adapters were made for other weights, are of a form that diffusers does not
            read, or are scaled or placed otherwise than the backbone's.
    """
    recorded = metadata.get(BASE_HASH)
    if recorded and recorded != backbone.base_hash():
        raise InputError(
            f"the adapters in {file} were made for {metadata.get('base_model', 'another model')}, "
            f"whose weights are not those of {backbone.model}; load that model."
        )
    odd = [
        name for name in tensors if any(mark in name for mark in ("dora_scale", "hada_", "lokr_"))
    ]
    if odd:
        raise InputError(
            f"{file} has {odd[0]}, which diffusers does not read; convert it to plain low-rank "
            "adapters."
        )
    pipeline = backbone.pipeline()
    networks = {name: getattr(pipeline, name) for name in _NETWORKS}
    trainable = {
        (name, key): weight.requires_grad
        for name, network in networks.items()
        for key, weight in network.named_parameters()
    }
    _add(pipeline, file, tensors)
    _check_complete(networks, file, pipeline, tensors)
    if backbone.lora is None:
        pipeline.fuse_lora(components=_adapted(networks), safe_fusing=True)
        pipeline.unload_lora_weights()
    else:
        for name, network in networks.items():
            _copy(network, name, backbone.lora, file)
    for name, network in networks.items():
        for key, weight in network.named_parameters():
            weight.requires_grad_(trainable[name, key])


def _add(pipeline: Any, file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Add the adapters under a name of their own."""
    with (
        reading("the adapters", str(file), RuntimeError, TypeError, AttributeError, IndexError),
        warnings.catch_warnings(),
        quiet_libraries(),
    ):
        warnings.simplefilter("ignore")
        if file.suffix == ".safetensors":
            pipeline.load_lora_weights(
                str(file.parent), weight_name=file.name, adapter_name=_NAME, local_files_only=True
            )
        else:
            pipeline.load_lora_weights(dict(tensors), adapter_name=_NAME)


def _adapted(networks: Mapping[str, nn.Module]) -> list[str]:
    return [name for name, network in networks.items() if _NAME in _configs(network)]


def _configs(network: Any) -> dict[str, Any]:
    return getattr(network, "peft_config", None) or {}


def _check_complete(
    networks: Mapping[str, nn.Module], file: Path, pipeline: Any, tensors: Mapping[str, Tensor]
) -> None:
    """Check that every tensor of the file has its layer; diffusers only warns."""
    source: Any = str(file.parent) if file.suffix == ".safetensors" else dict(tensors)
    options = {"weight_name": file.name} if file.suffix == ".safetensors" else {}
    state = pipeline.lora_state_dict(source, unet_config=networks["unet"].config, **options)[0]
    stored = [name for name in state if not name.endswith("alpha")]
    loaded = sum(
        f".{_NAME}." in f"{name}."
        for network in networks.values()
        for name, _ in network.named_parameters()
    )
    if loaded != len(stored):
        raise InputError(
            f"{file} has {len(stored)} tensors of adapters, and the model has layers for {loaded} "
            f"of them ({stored[0]} is one); load the model that they were trained on."
        )


def _layers(network: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: layer for name, layer in network.named_modules() if isinstance(layer, LoraLayer)}


@torch.no_grad()
def _copy(network: Any, component: str, lora: LoRA, file: Path) -> None:
    """Copy the file's adapters to the backbone's, which must be of the same form."""
    for name, layer in _layers(network).items():
        stored, present = _NAME in layer.r, "default" in layer.r
        if stored != present:
            raise InputError(
                f"{file} has {'an' if stored else 'no'} adapter for {component}.{name}, and the "
                f"backbone has {'one' if present else 'none'}; give the backbone the part that the "
                "adapters were trained in, or leave out its lora, which merges them into the model."
            )
        stored_form, form = (_form(layer, adapter) for adapter in (_NAME, "default"))
        if stored_form != form:
            required, actual = (_listed(settings) for settings in (stored_form, form))
            raise InputError(
                f"the adapters in {file} were trained with {required}, and the backbone's lora has "
                f"{actual}; give it lora: {{{required}}}, or leave lora out, which merges the "
                "adapters into the model."
            )
        for parts in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
            if _NAME in parts:
                parts["default"].load_state_dict(parts[_NAME].state_dict())
        layer.delete_adapter(_NAME)
        layer.set_adapter("default")
    _configs(network).pop(_NAME, None)
    if hasattr(network, "_hf_peft_config_loaded"):  # adapters of PEFT alone, not of its loader
        network._hf_peft_config_loaded = False


def _form(layer: Any, adapter: str) -> dict[str, Any]:
    """Rank, alpha and variants of an adapter, by the names of `LoRA`."""
    rank = layer.r[adapter]
    scaling = layer.scaling[adapter]
    rslora = bool(getattr(layer, "use_rslora", {}).get(adapter, False))
    alpha = scaling * (rank**0.5 if rslora else rank)
    return {
        "r": rank,
        "lora_alpha": float(f"{float(alpha):.6g}"),
        "use_rslora": rslora,
        "use_dora": bool(layer.use_dora.get(adapter, False)),
    }


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {str(value).lower()}" for name, value in settings.items())
