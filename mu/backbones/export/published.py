"""Published form of exported folders, which versions of transformers before 5 read too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mu.utils.files import read_json, save_tensors, write_json

_LOCAL = ("backend", "is_local", "local_files_only")
"""Entries of tokenizer_config.json that say how this machine read the tokenizer."""


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
        write_json(file, {key: value for key, value in config.items() if key not in _LOCAL})
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items() if value}
    if special and not (folder / "special_tokens_map.json").exists():
        write_json(folder / "special_tokens_map.json", special)


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
