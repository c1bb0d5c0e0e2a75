"""Files of adapters in PEFT's form: reading into a backbone, and merging into a network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mu.backbones.lora import base_name
from mu.utils.errors import InputError
from mu.utils.files import read_json
from mu.utils.weight_checks import check_values
from mu.utils.weights import weights_hash

PREFIX = "base_model.model."
"""Before every name in a file of PEFT."""
BASE_HASH = "mu_base_hash"
"""Key of the metadata of `adapter_model.safetensors`: hash of the weights without adapters."""
_SETTINGS = ("r", "lora_alpha", "use_rslora", "use_dora")
"""Settings of PEFT that a `LoRA` has."""
_WITHOUT_EFFECT = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "loftq_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "revision",
    "runtime_config",
    "target_modules",
    "target_parameters",
    "task_type",
}
"""Settings of PEFT that do not change what trained adapters compute; names of adapted layers are
compared by the tensors.
"""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds adapters in PEFT's form."""
    return (folder / "adapter_config.json").is_file()


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Settings, tensors and metadata of a folder of adapters.

    Raises:
        InputError: a file is missing or damaged, or a value is no finite number.
    """
    from safetensors import SafetensorError, safe_open

    settings = read_json(folder / "adapter_config.json")
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise InputError(
            f"{folder} has an adapter_config.json and no adapter_model.safetensors; it may not "
            "have been saved to its end."
        )
    if not isinstance(settings, dict):
        raise InputError(f"{folder}/adapter_config.json is not an object; export it anew.")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file} is not a whole safetensors file ({error}); it may be cut off."
        ) from error
    check_values(tensors, file)
    return settings, tensors, metadata


def load_adapter(backbone: Any, folder: Path) -> None:
    """Load the adapters of a PEFT folder into a backbone with adapters of the same form.

    Raises:
        InputError: when the file was made for another base model, or its adapters are scaled,
            placed or formed otherwise than the backbone's.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    settings, stored, metadata = read_adapter(folder)
    _check_base(backbone.network, backbone.model, folder, settings, metadata)
    _check_settings(backbone.network.peft_config["default"].to_dict(), settings, folder)
    tensors = {name.removeprefix(PREFIX): value for name, value in stored.items()}
    adapter_state = get_peft_model_state_dict(backbone.network)
    odd = sorted(set(adapter_state) ^ set(tensors)) or [
        name for name in adapter_state if adapter_state[name].shape != tensors[name].shape
    ]
    if odd:
        raise InputError(
            f"the adapters in {folder} do not fit those of the backbone ({odd[0]}); give the "
            "backbone the part that they were trained in, or leave out its lora, which merges them "
            "into the model."
        )
    set_peft_model_state_dict(backbone.network, tensors)


def merge_adapters_of(network: Any, folder: Path, model: str) -> None:
    """Merge the adapters of a PEFT folder, of any form that PEFT merges, into a network.

    Args:
        network: a network of transformers.
        folder: the adapters.
        model: the network's model, for messages.

    Raises:
        InputError: when the file was made for another base model, or does not fit this one.
    """
    from peft import PeftModel

    settings, _, metadata = read_adapter(folder)
    _check_base(network, model, folder, settings, metadata)
    trainable = {name: weight.requires_grad for name, weight in network.named_parameters()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of missing keys, which the report has too
            wrapped: Any = PeftModel.from_pretrained(network, str(folder))
            report = wrapped.load_adapter(str(folder), adapter_name="default")
    except (ValueError, RuntimeError, KeyError, TypeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(_misfit(model, folder, settings, reason)) from error
    odd = [*(name for name in report.missing_keys if "lora_" in name), *report.unexpected_keys]
    if odd:
        raise InputError(_misfit(model, folder, settings, odd[0]))
    wrapped.merge_and_unload(safe_merge=True)  # in place
    for name, weight in network.named_parameters():
        weight.requires_grad_(trainable.get(name, True))


def adapter_base(folder: Path) -> str:
    """Model that the adapters of a folder were trained on, as the folder names it.

    Raises:
        InputError: when it names none, or a folder that is not there.
    """
    settings = read_json(folder / "adapter_config.json")
    base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    # a hub id has one slash; what begins with a dot or a slash, or has more, is a folder
    folder_like = isinstance(base, str) and (base.startswith((".", "/")) or base.count("/") > 1)
    if not isinstance(base, str) or not base or (folder_like and not Path(base).is_dir()):
        state = (
            f"names the base model {base}, which is not there" if base else "names no base model"
        )
        raise InputError(
            f"{folder} holds adapters alone and {state}; set model to the base model, and weights "
            f"to {folder}."
        )
    return base


def _misfit(model: str, folder: Path, settings: Mapping[str, Any], reason: str) -> str:
    return (
        f"the adapters in {folder} do not fit {model} ({reason}); load the model they "
        f"were trained on, {settings.get('base_model_name_or_path')}."
    )


def _check_base(
    network: nn.Module,
    model: str,
    folder: Path,
    settings: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> None:
    recorded = metadata.get(BASE_HASH) or settings.get(BASE_HASH)
    if recorded and recorded != base_hash(network):
        raise InputError(
            f"the adapters in {folder} were made for {settings.get('base_model_name_or_path')}, "
            f"whose weights are not those of {model}; load that model."
        )


def _check_settings(current: Mapping[str, Any], stored: Mapping[str, Any], folder: Path) -> None:
    """Check that two configurations of PEFT scale and alter layers alike."""
    different = sorted(
        name
        for name, value in stored.items()
        if name in current
        and name not in _WITHOUT_EFFECT
        and _plain(value) != _plain(current[name])
    )
    if not different:
        return
    unsupported = [name for name in different if name not in _SETTINGS]
    if unsupported:
        name = unsupported[0]
        raise InputError(
            f"the adapters in {folder} have {name} {stored[name]!r}, which a lora of mu does not "
            "train; leave out the backbone's lora, which merges them into the model."
        )
    required = ", ".join(f"{name} {stored[name]}" for name in different)
    actual = ", ".join(f"{name} {current[name]}" for name in different)
    raise InputError(
        f"the adapters in {folder} were trained with {required}, and the backbone's lora has "
        f"{actual}; give it lora: {{{required}}}, or leave lora out, which merges the adapters "
        "into the model."
    )


def _plain(value: Any) -> Any:
    """Value of a setting, for comparison: unset, empty and default are the same."""
    if value in (None, False, {}, [], "none") or value == "":
        return None
    # both begin with B = 0, and only strings that change the base (pissa, olora) matter
    return True if value == "gaussian" else value


def base_hash(network: nn.Module) -> str:
    """Hash of the weights without adapters."""
    return weights_hash(
        {
            base_name(name): value
            for name, value in network.state_dict().items()
            if ".lora_" not in name
        }
    )
