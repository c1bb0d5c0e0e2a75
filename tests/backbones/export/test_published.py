"""Exported folders in the form in which models are published, for earlier versions of
transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from mu.backbones import CausalLM, LoRA, TextToImage
from mu.backbones.export import export
from mu.backbones.export.published import model_settings, rename_weights, text_model_name
from tests.support.doubles import text_to_image
from tests.support.doubles_text import tokenizer
from tests.support.families import family_network
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
    backbone = text_to_image(part="text_encoder", lora=LoRA(r=2))
    export(backbone, tmp_path / "adapter", form="adapter")
    names = load_file(tmp_path / "adapter" / "pytorch_lora_weights.safetensors")
    assert names and all(name.startswith("text_encoder.text_model.") for name in names)


def test_an_index_of_several_files_is_renamed_too(tmp_path: Path) -> None:
    """Fails when the index of a large text encoder names tensors that no file has."""
    for shard, name in enumerate(("a", "b")):
        save_file({name: torch.ones(1)}, tmp_path / f"model-{shard}.safetensors")
    index = {"weight_map": {"a": "model-0.safetensors", "b": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    rename_weights(tmp_path, text_model_name)
    stored = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert stored == {
        "text_model.a": "model-0.safetensors",
        "text_model.b": "model-1.safetensors",
    }
    assert list(load_file(tmp_path / "model-1.safetensors")) == ["text_model.b"]


# ---- language models -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "rotary", "settings"),
    [
        ("llama", {"rope_theta": 5000.0}, {"rope_theta": 5000.0, "rope_scaling": None}),
        (
            "llama",
            {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
            {
                "rope_theta": 5e5,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 32,
                },
            },
        ),
        (
            "phi",
            {"rope_theta": 500.0, "partial_rotary_factor": 0.5},
            {"rope_theta": 500.0, "partial_rotary_factor": 0.5, "rope_scaling": None},
        ),
        (
            "gpt_neox",
            {"rope_theta": 500.0, "partial_rotary_factor": 1.0},
            {"rotary_emb_base": 500.0, "rotary_pct": 1.0, "rope_scaling": None},
        ),
    ],
    ids=str,
)
def test_rotary_positions_and_dtype_have_their_earlier_names(
    family: str, rotary: dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    """Transformers before 5 takes its default base, 10000, where it finds no name it knows."""
    parameters = {"rope_type": "default", **rotary}
    network: Any = family_network(family, rope_parameters=parameters)
    folder = export(CausalLM(network=network, tokenizer=tokenizer()), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert {name: config[name] for name in settings} == settings
    assert "rope_parameters" not in config and "dtype" not in config
    assert config["torch_dtype"] == "float32"
    again: Any = CausalLM(str(folder)).network
    tokens = torch.arange(24).view(2, 12)
    with torch.no_grad():
        assert torch.equal(again(input_ids=tokens).logits, network(input_ids=tokens).logits)


def test_a_tokenizer_of_a_language_model_has_its_earlier_form(tmp_path: Path) -> None:
    words = tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    words.chat_template = "{% for message in messages %}{{ message.content }}<turn>{% endfor %}"
    backbone = CausalLM(network=family_network("llama", vocab_size=len(words)), tokenizer=words)
    folder = export(backbone, tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["additional_special_tokens"] == ["<turn>"]
    assert "extra_special_tokens" not in config and "backend" not in config
    assert config["chat_template"] == words.chat_template
    again = CausalLM(str(folder)).tokenizer
    assert again("who is ada <turn>").input_ids == words("who is ada <turn>").input_ids
    assert again.chat_template == words.chat_template


def test_a_folder_with_settings_of_texts_inside_is_published_too() -> None:
    inner = {"rope_parameters": {"rope_type": "default", "rope_theta": 7.0}, "dtype": "bfloat16"}
    layered = {"rope_parameters": {"full_attention": {"rope_theta": 7.0}}}
    assert model_settings({"text_config": inner, "vision_config": layered}) == {
        "text_config": {"rope_theta": 7.0, "rope_scaling": None, "torch_dtype": "bfloat16"},
        "vision_config": layered,
    }
