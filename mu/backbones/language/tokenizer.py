"""Tokenizers of causal language models, from a folder or the hub."""

from __future__ import annotations

from typing import Any

from mu.utils.errors import InputError


def load_tokenizer(place: str) -> Any:
    """The tokenizer of a folder, a hub id, or of a model that comes with mu (`embedded:authors`).

    Raises:
        InputError: when there is none.
    """
    from pathlib import Path

    from mu.utils.extras import require
    from mu.utils.hub import reading

    require("a tokenizer", "transformers", extra="llm")
    from transformers import AutoTokenizer

    found = model_folder(place)
    if Path(found).is_dir() and not any(
        (Path(found) / name).is_file()
        for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
    ):
        raise InputError(
            f"the folder {place} has no tokenizer; save one into it with "
            "tokenizer.save_pretrained(FOLDER)."
        )
    with reading("the tokenizer", found):
        return AutoTokenizer.from_pretrained(found)


def model_folder(model: str) -> str:
    """The folder of `embedded:NAME`; anything else as it stands."""
    if not model.startswith("embedded:"):
        return model
    from mu.backbones.embedded import path

    return str(path(model.removeprefix("embedded:")))
