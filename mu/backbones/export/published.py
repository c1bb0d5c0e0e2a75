"""Published form of exported folders, which versions of transformers before 5 read too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mu.utils.files import read_json, save_tensors, write_json

_LOCAL = ("backend", "is_local", "local_files_only")
"""Entries of tokenizer_config.json that say how this machine read the tokenizer."""
_ROTARY_NAMES = {"gpt_neox": ("rotary_emb_base", "rotary_pct")}
"""Names of base and share of rotary positions, of families with names of their own."""


def publish_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the files of a tokenizer beside its tokenizer.json as earlier versions need them.

    These are `vocab.json` and `merges.txt` of a byte-pair encoding, special_tokens_map.json, and a
    tokenizer_config.json without entries that belong to this machine.

    Args:
        tokenizer: tokenizer of transformers.
        folder: folder that its `save_pretrained` has written.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if type(getattr(backend, "model", None)).__name__ == "BPE":
        backend.model.save(str(folder))
    file = folder / "tokenizer_config.json"
    if file.is_file():
        config = read_json(file)
        template = getattr(tokenizer, "chat_template", None)
        write_json(file, tokenizer_settings(config, template))
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items() if value}
    if special and not (folder / "special_tokens_map.json").exists():
        write_json(folder / "special_tokens_map.json", special)


def tokenizer_settings(config: Mapping[str, Any], template: Any = None) -> dict[str, Any]:
    """Settings of tokenizer_config.json as versions before 5 name them.

    Args:
        config: settings that version 5 has written.
        template: chat template, which versions before 4.50 read from these settings.

    >>> tokenizer_settings({"tokenizer_class": "TokenizersBackend", "is_local": True})
    {'tokenizer_class': 'PreTrainedTokenizerFast'}
    """
    settings = {key: value for key, value in config.items() if key not in _LOCAL}
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    if isinstance(template, str):
        settings["chat_template"] = template
    return settings


def publish_config(folder: Path) -> None:
    """Write the settings of config.json as versions before 5 name them, see `model_settings`."""
    file = folder / "config.json"
    write_json(file, model_settings(read_json(file)))


def model_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a model with those of rotary positions and dtype under their earlier names.

    Earlier versions take their defaults for names that they do not find, without a word; a model
    with another base of its rotary positions would compute other logits.

    Args:
        config: settings that version 5 has written, those of texts inside too.

    >>> model_settings({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})
    {'rope_theta': 500000.0, 'rope_scaling': None}
    """
    settings = {
        key: model_settings(value) if key.endswith("_config") and isinstance(value, dict) else value
        for key, value in config.items()
    }
    if "dtype" in settings:
        settings["torch_dtype"] = settings.pop("dtype")
    rotary = settings.get("rope_parameters")
    if not isinstance(rotary, dict):
        return settings
    if any(isinstance(value, dict) for value in rotary.values()):
        # one set for each kind of layer, which the versions that know them read as they are
        return settings
    del settings["rope_parameters"]
    rotary = dict(rotary)
    theta, share = _ROTARY_NAMES.get(
        str(settings.get("model_type")), ("rope_theta", "partial_rotary_factor")
    )
    if "rope_theta" in rotary:
        settings[theta] = rotary.pop("rope_theta")
    if "partial_rotary_factor" in rotary:
        settings[share] = rotary.pop("partial_rotary_factor")
    plain = rotary.get("rope_type", "default") == "default" and len(rotary) <= 1
    settings["rope_scaling"] = None if plain else rotary
    return settings


def rename_weights(folder: Path, rename: Callable[[str], str]) -> None:
    """Rename the tensors in all safetensors files of a folder, and in their index.

    Args:
        folder: folder that `save_pretrained` has written.
        rename: from a name to another.
    """
    from safetensors import safe_open

    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
            tensors = {rename(name): opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
        save_tensors(file, tensors, metadata)
    for file in folder.glob("*.index.json"):
        index = read_json(file)
        index["weight_map"] = {rename(key): value for key, value in index["weight_map"].items()}
        write_json(file, index)


def text_model_name(name: str) -> str:
    """Name of a weight of CLIP's text encoder as the hub's models have it.

    >>> text_model_name("encoder.layers.0.mlp.fc1.bias")
    'text_model.encoder.layers.0.mlp.fc1.bias'
    """
    return name if name.startswith("text_model.") else f"text_model.{name}"
