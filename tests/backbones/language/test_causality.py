"""Causality: models that see later tokens are refused as causal language models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mu.backbones.language.causal_lm import CausalLM
from mu.backbones.language.causality import check_causal
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, folder

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def bert(decoder: bool) -> nn.Module:
    from transformers import BertConfig, BertLMHeadModel

    torch.manual_seed(0)
    return BertLMHeadModel(BertConfig(**SIZES, is_decoder=decoder)).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_encoder_is_refused_and_its_decoder_form_is_not(dtype: torch.dtype) -> None:
    check_causal(bert(decoder=True).to(dtype), "decoder")
    with pytest.raises(InputError, match="encoder is no causal language model: BertLMHeadModel"):
        check_causal(bert(decoder=False).to(dtype), "encoder")


def test_a_folder_of_an_encoder_is_refused(tmp_path: Path) -> None:
    encoder: Any = bert(decoder=False)
    encoder.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no causal language model"):
        CausalLM(str(tmp_path))
    with pytest.raises(InputError, match="no causal language model"):
        CausalLM(network=encoder, tokenizer=object())


def test_a_model_without_logits_is_refused() -> None:
    from transformers import BertConfig, BertModel

    with pytest.raises(InputError, match="returns no logits"):
        check_causal(BertModel(BertConfig(**SIZES)), "x")


def test_a_configuration_that_cannot_compute_is_refused() -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    network = MixtralForCausalLM(MixtralConfig(**SIZES, num_key_value_heads=8))
    with pytest.raises(InputError, match=r"computes no logits from token ids \(.*config\.json"):
        check_causal(network, "x")


def test_the_check_leaves_the_random_state_and_the_gradients_alone() -> None:
    network = causal_lm().network.train()
    before = torch.random.get_rng_state()
    check_causal(network, folder())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert network.training and all(weight.grad is None for weight in network.parameters())
