"""Tokenizers of causal language models, from a folder or the hub, and left padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mu.utils.errors import InputError

_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def load_tokenizer(place: str) -> Any:
    """Tokenizer of a folder, a hub id, or an embedded model (`embedded:authors`).

    Raises:
        InputError: when there is none.
    """
    from pathlib import Path

    from mu.backbones.adapter_files import adapter_base, is_adapter
    from mu.utils.extras import require
    from mu.utils.hub import reading

    require("a tokenizer", "transformers", extra="llm")
    from transformers import AutoTokenizer

    folder = model_folder(place)
    has_files = any((Path(folder) / name).is_file() for name in _FILES)
    if is_adapter(Path(folder)) and not has_files:
        return load_tokenizer(adapter_base(Path(folder)))
    if Path(folder).is_dir() and not has_files:
        raise InputError(
            f"the folder {place} has no tokenizer; save one into it with "
            "tokenizer.save_pretrained(FOLDER)."
        )
    # the library answers damaged files with errors of any class
    with reading("the tokenizer", folder, Exception):
        return AutoTokenizer.from_pretrained(folder)


def model_folder(model: str) -> str:
    """Folder of `embedded:NAME`; other names unchanged."""
    if not model.startswith("embedded:"):
        return model
    from mu.backbones.embedded import path

    return str(path(model.removeprefix("embedded:")))


def left_padded(
    ids: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Token ids `[B, L]` of prompts, padded on the left, and their mask `[B, L]`."""
    width = max(len(row) for row in ids)
    tokens = torch.full((len(ids), width), pad, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for position, row in enumerate(ids):
        tokens[position, width - len(row) :] = torch.as_tensor(list(row))
        mask[position, width - len(row) :] = 1
    return tokens.to(device), mask.to(device)
