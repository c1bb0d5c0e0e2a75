"""Exported folders in the form in which models are published, for earlier versions of
transformers.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from mu.backbones import LoRA, TextToImage
from mu.backbones.export import export
from mu.backbones.export.published import rename_weights, text_model_name
from tests.support.doubles import text_to_image
from tests.support.helpers import different, weights


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the tiny Stable Diffusion."""
    return export(text_to_image(), tmp_path_factory.mktemp("published") / "model")


def test_the_text_encoder_has_its_published_names(exported: Path) -> None:
    """Fails when an earlier version of transformers finds no weight, and draws all at random."""
    names = load_file(exported / "text_encoder" / "model.safetensors")
    assert names and all(name.startswith("text_model.") for name in names)
    assert different(weights(TextToImage(str(exported))), weights(text_to_image())) == []


def test_the_tokenizer_has_vocabulary_and_merges(exported: Path) -> None:
    """Fails when a tokenizer can be read from tokenizer.json alone."""
    folder = exported / "tokenizer"
    vocabulary = json.loads((folder / "vocab.json").read_text())
    lines = (folder / "merges.txt").read_text().strip().split("\n")
    assert lines[0].startswith("#version")
    rebuilt = CLIPTokenizer(
        vocab=vocabulary, merges=[tuple(line.split()) for line in lines[1:]], model_max_length=16
    )
    backbone = text_to_image()
    prompts = ["a red circle", "zebra's star, on DARK"]
    options = {"padding": "max_length", "max_length": 16, "truncation": True}
    assert rebuilt(prompts, **options)["input_ids"] == backbone.tokenise(prompts)[0].tolist()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert not {"is_local", "local_files_only", "backend", "name_or_path"} & set(config)
    special = json.loads((folder / "special_tokens_map.json").read_text())
    assert special["eos_token"] == "<|endoftext|>"


def test_adapters_of_the_text_encoder_have_its_published_names(tmp_path: Path) -> None:
    """Fails when an earlier version passes the text encoder's adapters over."""
    backbone = text_to_image(part="text_encoder", lora=LoRA(rank=2))
    export(backbone, tmp_path / "adapter", form="adapter")
    names = load_file(tmp_path / "adapter" / "pytorch_lora_weights.safetensors")
    assert names and all(name.startswith("text_encoder.text_model.") for name in names)


def test_an_index_of_several_files_is_renamed_too(tmp_path: Path) -> None:
    """Fails when the index of a large text encoder names tensors that no file has."""
    for number, name in enumerate(("a", "b")):
        save_file({name: torch.ones(1)}, tmp_path / f"model-{number}.safetensors")
    index = {"weight_map": {"a": "model-0.safetensors", "b": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    rename_weights(tmp_path, text_model_name)
    stored = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert stored == {
        "text_model.a": "model-0.safetensors",
        "text_model.b": "model-1.safetensors",
    }
    assert list(load_file(tmp_path / "model-1.safetensors")) == ["text_model.b"]
