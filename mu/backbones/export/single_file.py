"""One safetensors file of a Stable Diffusion in CompVis' names, for programs that take one file.

The names are read again by `mu import` and by `from_single_file` of diffusers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mu.utils.errors import InputError

FILE = "model.safetensors"
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def compvis_state(unet: Any, vae: Any, text_encoder: Any) -> dict[str, Tensor]:
    """Tensors of the three networks by their names in CompVis' code.

    Args:
        unet: UNet2DConditionModel without adapters.
        vae: AutoencoderKL.
        text_encoder: CLIPTextModel; that of Stable Diffusion 2.x, whose activation is `gelu`, gets
            the names of OpenCLIP.

    Raises:
        InputError: for a UNet whose blocks differ in their number of layers.
    """
    text = {name.removeprefix("text_model."): v for name, v in text_encoder.state_dict().items()}
    text = {name: value for name, value in text.items() if not name.endswith("position_ids")}
    if text_encoder.config.hidden_act == "quick_gelu":
        text = {f"cond_stage_model.transformer.text_model.{name}": v for name, v in text.items()}
    else:
        text = {f"cond_stage_model.model.{name}": v for name, v in open_clip_names(text).items()}
    return {
        **{
            f"model.diffusion_model.{unet_name(name, unet.config)}": value
            for name, value in unet.state_dict().items()
        },
        **{
            f"first_stage_model.{vae_name(name, vae.config)}": (
                value[:, :, None, None] if ".attentions." in name and value.dim() == 2 else value
            )
            for name, value in vae.state_dict().items()
        },
        **text,
    }


def unet_name(name: str, config: Any) -> str:
    """Name of a UNet's weight in CompVis' code, which numbers the blocks of each side in a row.

    Args:
        name: name in UNet2DConditionModel.
        config: its configuration.
    """
    layers = config.layers_per_block
    if not isinstance(layers, int):
        raise InputError(
            f"a UNet with {list(layers)} layers per block has no names in CompVis' code; export "
            "the whole model as a folder."
        )
    module, parameter = name.rsplit(".", 1)
    if module in _UNET_ENDS:
        return f"{_UNET_ENDS[module]}.{parameter}"
    if middle := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name):
        position = 1 if middle[1] == "attentions" else 2 * int(middle[2])
        return f"middle_block.{position}.{_inner(middle[1], middle[3])}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    if match is None:
        raise InputError(f"the UNet's {name} has no name in CompVis' code; export a folder.")
    side, block, group, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    position = block * (layers + 1) + layer
    if side == "down":
        blocks = f"input_blocks.{1 + position}"
        if group == "downsamplers":
            return f"input_blocks.{(block + 1) * (layers + 1)}.0.op.{parameter}"
    else:
        blocks = f"output_blocks.{position}"
        if group == "upsamplers":
            attends = "CrossAttn" in config.up_block_types[block]
            last = block * (layers + 1) + layers
            return f"output_blocks.{last}.{2 if attends else 1}.conv.{parameter}"
    return f"{blocks}.{int(group == 'attentions')}.{_inner(group, rest)}"


def _inner(group: str, rest: str) -> str:
    """Name inside a residual block; attention blocks have the same names in both codes."""
    if group == "attentions":
        return rest
    module, parameter = rest.rsplit(".", 1)
    return f"{_RESIDUAL[module]}.{parameter}"


def vae_name(name: str, config: Any) -> str:
    """Name of an autoencoder's weight in CompVis' code, which numbers the decoder's blocks down."""
    last = len(config.block_out_channels) - 1
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if match := re.fullmatch(r"(\w+)\.mid_block\.attentions\.0\.(.+)\.(\w+)", name):
        return f"{match[1]}.mid.attn_1.{_VAE_ATTENTION[match[2]]}.{match[3]}"
    if match := re.fullmatch(r"(\w+)\.mid_block\.resnets\.(\d+)\.(.+)", name):
        return f"{match[1]}.mid.block_{int(match[2]) + 1}.{match[3]}"
    match = re.fullmatch(r"(\w+)\.(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    if match is None:
        return name
    position = int(match[3]) if match[2] == "down" else last - int(match[3])
    inner = f"block.{match[5]}" if match[4] == "resnets" else f"{match[2]}sample"
    return f"{match[1]}.{match[2]}.{position}.{inner}.{match[6]}"


def open_clip_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Text encoder's tensors by OpenCLIP's names: queries, keys and values in one matrix."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in _CLIP_ENDS:
            renamed[_CLIP_ENDS[name]] = value
            continue
        match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if match is None:
            raise InputError(f"the text encoder's {name} has no name in OpenCLIP; export a folder.")
        block, module, parameter = f"transformer.resblocks.{match[1]}", match[2], match[3]
        if module in _CLIP_LAYER:
            renamed[f"{block}.{_CLIP_LAYER[module]}.{parameter}"] = value
        elif module == "self_attn.q_proj":
            renamed[f"{block}.attn.in_proj_{parameter}"] = torch.cat(
                [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            )
    return renamed
