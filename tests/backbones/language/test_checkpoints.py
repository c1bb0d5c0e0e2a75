"""Networks and weights of language models, from transformers folders and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mu.backbones.language.causal_lm import CausalLM
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, folder


def gemma(target: Path) -> str:
    """Folder of a tiny Gemma 2, whose attention has no sdpa form in transformers."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=16,
    )
    Gemma2ForCausalLM(config).save_pretrained(target)
    return str(target)


def test_the_default_attention_is_that_of_the_model(tmp_path: Path) -> None:
    network: Any = CausalLM(gemma(tmp_path)).network
    assert network.config._attn_implementation == "eager"
    llama: Any = causal_lm().network
    assert llama.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2", "unknown"])
@pytest.mark.parametrize("init_seed", [None, 0])
def test_attention_that_the_model_lacks_names_the_option(
    attention: str, init_seed: int | None, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=rf"with attention '{attention}' .*; set backbone\.attention to eager"
    ):
        CausalLM(gemma(tmp_path), attention=attention, init_seed=init_seed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value * torch.nan, "NaN or infinity in"),
        (lambda value: value.to(torch.int8), "int8"),
        (lambda value: value.to(torch.complex64), "complex64"),
    ],
)
def test_values_that_are_no_weights_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = load_file(f"{folder()}/model.safetensors")
    tensors["model.norm.weight"] = change(tensors["model.norm.weight"])
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=message):
        causal_lm(weights=str(tmp_path / "other.safetensors"))
