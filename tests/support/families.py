"""Tiny members of transformers' families of causal language models, with random weights."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.support.doubles_text import WORDS, tokenizer

VOCABULARY = len(WORDS) + 4
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
    "tie_word_embeddings": False,
    **_SPECIAL,
}
_GPT = {
    "vocab_size": VOCABULARY,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 64,
    "initializer_range": 0.1,
    **_SPECIAL,
}
_HEAD = {"head_dim": 8}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 12}
_LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_group": 1,
    "topk_group": 1,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 2,
}
_GEMMA_TEXT = {**_LLAMA, **_HEAD, "layer_types": ["sliding_attention", "full_attention"]}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _LLAMA),
    "llama_tied": ("Llama", {**_LLAMA, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {**_LLAMA, **_HEAD}),
    "mixtral": ("Mixtral", {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("Qwen2", _LLAMA),
    "qwen2_moe": (
        "Qwen2Moe",
        {**_LLAMA, **_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 12},
    ),
    "qwen3": ("Qwen3", {**_LLAMA, **_HEAD}),
    "qwen3_moe": ("Qwen3Moe", {**_LLAMA, **_HEAD, **_EXPERTS, "num_experts": 4}),
    "gemma": ("Gemma", {**_LLAMA, **_HEAD, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", {**_LLAMA, **_HEAD, "tie_word_embeddings": True}),
    "gemma3": ("Gemma3", {**_GEMMA_TEXT, "tie_word_embeddings": True}),
    "phi": ("Phi", {**_LLAMA, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3", _LLAMA),
    "gpt2": ("GPT2", _GPT),
    "gpt_neo": (
        "GPTNeo",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 64,
            "initializer_range": 0.1,
            **_SPECIAL,
        },
    ),
    "gpt_neox": ("GPTNeoX", {**_LLAMA, "rotary_pct": 0.5}),
    "gptj": ("GPTJ", {**_GPT, "rotary_dim": 4, "tie_word_embeddings": False}),
    "gpt_oss": (
        "GptOss",
        {
            **_LLAMA,
            **_HEAD,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "gpt_bigcode": ("GPTBigCode", _GPT),
    "bloom": (
        "Bloom",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "n_layer": 2,
            "n_head": 2,
            "initializer_range": 0.1,
            **_SPECIAL,
        },
    ),
    "opt": (
        "OPT",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "word_embed_proj_dim": 16,
            "ffn_dim": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
            "init_std": 0.1,
            **_SPECIAL,
        },
    ),
    "falcon": ("Falcon", {**_LLAMA, "new_decoder_architecture": False}),
    "stablelm": ("StableLm", _LLAMA),
    "olmo2": ("Olmo2", _LLAMA),
    "olmoe": ("Olmoe", {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2}),
    "granite": ("Granite", _LLAMA),
    "cohere": ("Cohere", {**_LLAMA, "tie_word_embeddings": True}),
    "deepseek_v2": ("DeepseekV2", {**_LLAMA, **_EXPERTS, **_LATENT}),
    "deepseek_v3": ("DeepseekV3", {**_LLAMA, **_EXPERTS, **_LATENT}),
    "smollm3": ("SmolLM3", _LLAMA),
    "llama4": (
        "Llama4",
        {**_LLAMA, **_HEAD, "intermediate_size_mlp": 24, "num_local_experts": 4},
    ),
    "mamba": (
        "Mamba",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "state_size": 4,
            "initializer_range": 0.1,
            **_SPECIAL,
        },
    ),
}
"""Name in transformers, and the configuration, of each family."""


def family_network(family: str, **changes: Any) -> nn.Module:
    """Random network of a family, always the same."""
    import transformers

    name, settings = FAMILIES[family]
    text = {"Gemma3": "Gemma3TextConfig", "Llama4": "Llama4TextConfig"}
    config_class = getattr(transformers, text.get(name, f"{name}Config"))
    heads = {"GPT2": "GPT2LMHeadModel"}
    network_class = getattr(transformers, heads.get(name, f"{name}ForCausalLM"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return network_class(config_class(**{**settings, **changes})).eval()


@functools.cache
def family_folder(family: str) -> str:
    """Folder of a family's network and its tokenizer, as transformers saves them."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    path = Path(tempfile.mkdtemp(prefix=f"mu-{family}-"))
    network: Any = family_network(family)
    network.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return str(path)
