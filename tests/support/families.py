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

_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_ROTARY = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
MULTIMODAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3_images": (
        "Gemma3",
        {"text_config": _GEMMA_TEXT, "vision_config": _VISION, "mm_tokens_per_image": 4},
    ),
    "llava": (
        "Llava",
        {
            "text_config": {"model_type": "llama", **_LLAMA},
            "vision_config": {"model_type": "clip_vision_model", **_VISION},
            "image_token_index": 32000,
        },
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VL",
        {
            "text_config": {**_LLAMA, **_ROTARY},
            "vision_config": {
                "depth": 1,
                "hidden_size": 16,
                "num_heads": 2,
                "intermediate_size": 16,
                "out_hidden_size": 16,
                "patch_size": 8,
            },
        },
    ),
    "llama4_images": (
        "Llama4",
        {
            "text_config": FAMILIES["llama4"][1],
            "vision_config": {
                **_VISION,
                "vision_output_dim": 16,
                "projector_input_dim": 16,
                "projector_output_dim": 16,
            },
        },
    ),
    "mistral3": (
        "Mistral3",
        {
            "text_config": {"model_type": "mistral", **_LLAMA, **_HEAD},
            "vision_config": {"model_type": "pixtral", **_VISION},
        },
    ),
}
"""The same for models that read images too."""


def family_network(family: str, **changes: Any) -> nn.Module:
    """Random network of a family, always the same."""
    import transformers

    if family in MULTIMODAL:
        name, settings = MULTIMODAL[family]
        class_names = f"{name}Config", f"{name}ForConditionalGeneration"
    else:
        name, settings = FAMILIES[family]
        text = {"Gemma3": "Gemma3Text", "Llama4": "Llama4Text"}.get(name, name)
        head = {"GPT2": "GPT2LMHeadModel"}.get(name, f"{name}ForCausalLM")
        class_names = f"{text}Config", head
    config_class, network_class = (getattr(transformers, class_name) for class_name in class_names)
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
