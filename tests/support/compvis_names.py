"""A writer of CompVis' names from those of diffusers, which shares nothing with the reader in
mu.
"""

from __future__ import annotations

import re

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

State = dict[str, Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
UNET_ENDS = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}


def renamed(name: str, words: dict[str, str]) -> str:
    """The first of the words that the name begins with, replaced."""
    old = next(old for old in words if name.startswith(f"{old}."))
    return words[old] + name.removeprefix(old)


def unet_names(state: State, layers: int) -> State:
    """Block b of the input is down block (b − 1) // (layers + 1), of the output up block b //
    (layers + 1).
    """
    converted = {}
    step = layers + 1
    for name, value in state.items():
        words = name.split(".")
        end = next((end for end in UNET_ENDS if name.startswith(end)), None)
        if end is not None:
            converted[UNET_ENDS[end] + name.removeprefix(end)] = value
            continue
        if words[0] == "mid_block":
            layer_type = words[1]
            index = int(words[2])
            rest = ".".join(words[3:])
            prefix = "middle_block.1" if layer_type == "attentions" else f"middle_block.{2 * index}"
        else:
            block = int(words[1])
            layer_type = words[2]
            index = int(words[3])
            rest = ".".join(words[4:])
            down = words[0] == "down_blocks"
            first = 1 + block * step if down else block * step
            side = "input_blocks" if down else "output_blocks"
            if layer_type == "downsamplers":
                converted[f"{side}.{first + layers}.0.op.{words[-1]}"] = value
                continue
            if layer_type == "upsamplers":
                attends = any(other.startswith(f"up_blocks.{block}.attentions.") for other in state)
                converted[f"{side}.{first + layers}.{2 if attends else 1}.conv.{words[-1]}"] = value
                continue
            prefix = f"{side}.{first + index}.{1 if layer_type == 'attentions' else 0}"
        converted[f"{prefix}.{rest if layer_type == 'attentions' else renamed(rest, RESNET)}"] = (
            value
        )
    return converted


def vae_names(state: State, blocks: int) -> State:
    converted = {}
    for name, value in state.items():
        words = name.split(".")
        if "attentions" in words:
            side = words[0]
            rest = ".".join(words[4:])
            new = f"{side}.mid.attn_1.{renamed(rest, ATTENTION)}"
            value = value[:, :, None, None] if value.dim() == 2 else value
        elif words[1:2] == ["mid_block"]:
            new = f"{words[0]}.mid.block_{int(words[3]) + 1}.{'.'.join(words[4:])}"
        elif words[1:2] == ["down_blocks"] and words[3] == "resnets":
            new = f"encoder.down.{words[2]}.block.{words[4]}.{'.'.join(words[5:])}"
        elif words[1:2] == ["down_blocks"]:
            new = f"encoder.down.{words[2]}.downsample.conv.{words[-1]}"
        elif words[1:2] == ["up_blocks"]:
            block = blocks - 1 - int(words[2])
            new = (
                f"decoder.up.{block}.block.{words[4]}.{'.'.join(words[5:])}"
                if words[3] == "resnets"
                else f"decoder.up.{block}.upsample.conv.{words[-1]}"
            )
        else:
            new = name.replace("conv_norm_out", "norm_out")
        converted[new.replace("conv_shortcut", "nin_shortcut")] = value
    return converted


def under(prefix: str, state: State) -> State:
    return {prefix + name: value.clone() for name, value in state.items()}


def text_names(state: State) -> State:
    """By the names of transformers before 5.6, with the buffer of their time."""
    plain = {name.removeprefix("text_model."): value for name, value in state.items()}
    return {
        **under("text_model.", plain),
        "text_model.embeddings.position_ids": torch.arange(16)[None],
    }


def open_clip_names(state: State) -> State:
    """Queries, keys and values in one matrix; a last layer and a projection, which Stable Diffusion
    does not use.
    """
    converted: State = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": torch.randn(16, 16),
        "logit_scale": torch.tensor(4.6),
        "transformer.resblocks.23.ln_1.weight": torch.ones(16),
    }
    words = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    for name, value in state.items():
        match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", name)
        if match and not re.search(r"[qkv]_proj", match[2]):
            converted[f"transformer.resblocks.{match[1]}.{renamed(match[2], words)}"] = value
        elif match and "q_proj" in match[2]:
            parameter = match[2].rpartition(".")[2]
            converted[f"transformer.resblocks.{match[1]}.attn.in_proj_{parameter}"] = torch.cat(
                [state[name.replace("q_proj", f"{other}_proj")] for other in "qkv"]
            )
    return converted


def average_names(unet: State, state: State) -> State:
    """Names without dots."""
    return {
        "model_ema." + f"diffusion_model.{name}".replace(".", ""): state[name] for name in unet
    } | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}


def deep_unet() -> UNet2DConditionModel:
    """A narrow UNet with the four levels and two layers a block of Stable Diffusion."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=2,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    )
