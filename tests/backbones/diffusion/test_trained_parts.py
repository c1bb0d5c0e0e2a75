"""Selectors against the names of real models, written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from mu.backbones import TextToImage
from mu.backbones.diffusion.trained_parts import UNET, trained_names
from mu.utils.errors import InputError
from tests.support.doubles import pipeline_folder, text_to_image

# names as a Stable Diffusion 1.x UNet and a CLIP text encoder with 12 layers have them
UNET_NAMES = [
    "unet.conv_in.weight",
    "unet.time_embedding.linear_1.weight",
    "unet.conv_norm_out.weight",
    "unet.conv_out.bias",
    "unet.down_blocks.0.resnets.0.time_emb_proj.weight",
    "unet.mid_block.resnets.0.norm1.weight",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj.weight",
    *(
        f"unet.{block}.transformer_blocks.0.{layer}.{matrix}"
        for block in (
            "down_blocks.1.attentions.0",
            "down_blocks.2.attentions.1",
            "up_blocks.2.attentions.0",
            "up_blocks.2.attentions.1",
            "up_blocks.3.attentions.2",
        )
        for layer in ("attn1", "attn2")
        for matrix in ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.bias")
    ),
]
TEXT_NAMES = [
    "text_encoder.embeddings.token_embedding.weight",
    "text_encoder.final_layer_norm.weight",
] + [
    f"text_encoder.encoder.layers.{layer}.{part}.weight"
    for layer in range(12)
    for part in ("self_attn.q_proj", "mlp.fc1", "layer_norm1")
]
NAMES = [*UNET_NAMES, *TEXT_NAMES, "vae.encoder.conv_in.weight"]


def test_cross_attention_is_the_whole_module() -> None:
    """Fails when ESD-x leaves out queries or the output projection, which the released code
    trains.
    """
    chosen = trained_names(NAMES, "xattn")
    assert {name.split("attn2.")[1] for name in chosen} == {
        "to_q.weight",
        "to_k.weight",
        "to_v.weight",
        "to_out.0.bias",
    }
    assert len(chosen) == 20
    assert trained_names(NAMES, "xattn-strict") == {
        name for name in chosen if "to_k" in name or "to_v" in name
    }


@pytest.mark.parametrize(
    ("part", "matches"),
    [
        ("esd-x", lambda name: "attn2" in name),
        ("esd-x-strict", lambda name: "attn2.to_k" in name or "attn2.to_v" in name),
        ("esd-u", lambda name: "attn2" not in name),
        ("esd-all", lambda name: True),
    ],
)
def test_parts_of_the_rewrite_are_linear_layers_and_convolutions(part: str, matches: Any) -> None:
    """Fails when norms are trained, or the time embedding and the last convolution are frozen."""
    backbone = TextToImage("embedded:shapes")
    expected = {
        f"unet.{name}.{parameter}"
        for name, module in backbone.unet.named_modules()
        if type(module).__name__ in ("Linear", "Conv2d") and matches(name)
        for parameter, _ in module.named_parameters(recurse=False)
    }
    names = [name for name, _ in backbone.named_parameters()]
    assert trained_names(names, part) == expected
    counts = {"esd-x": 35, "esd-x-strict": 14, "esd-u": 187, "esd-all": 222}
    assert len(expected) == counts[part]


@pytest.mark.slow
def test_parts_of_the_rewrite_at_the_size_of_stable_diffusion() -> None:
    """The authors' function over the UNet of SD 1.4: 16 blocks of cross-attention, 686 tensors.

    Fails when a layer of the full model belongs to another part than that of the small one.
    """
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    linear = [
        (f"unet.{name}.{parameter}", name)
        for name, module in unet.named_modules()
        if type(module).__name__ in ("Linear", "Conv2d")
        for parameter, _ in module.named_parameters(recurse=False)
    ]
    names = [f"unet.{name}" for name, _ in unet.named_parameters()]
    expected = {
        "esd-x": {name for name, module in linear if "attn2" in module},
        "esd-u": {name for name, module in linear if "attn2" not in module},
        "esd-all": {name for name, _ in linear},
    }
    assert {part: trained_names(names, part) for part in expected} == expected
    counts = {part: len(tensors) for part, tensors in expected.items()}
    assert (len(names), counts) == (686, {"esd-x": 80, "esd-u": 388, "esd-all": 468})


def test_noxattn_keeps_the_projections_of_time_inside_blocks() -> None:
    """Fails when ESD-u freezes `time_emb_proj` with the global time embedding, or trains the output
    layers.
    """
    frozen = {name for name in UNET_NAMES if "attn2" in name} | {
        "unet.time_embedding.linear_1.weight",
        "unet.conv_norm_out.weight",
        "unet.conv_out.bias",
    }
    assert trained_names(NAMES, "noxattn") == set(UNET_NAMES) - frozen
    assert "unet.down_blocks.0.resnets.0.time_emb_proj.weight" in trained_names(NAMES, "noxattn")
    assert trained_names(NAMES, "notime") == trained_names(NAMES, "noxattn") | trained_names(
        NAMES, "xattn"
    )


def test_single_layers() -> None:
    """Fails when the blocks that stand for CompVis' 6, 8 (out) and 4, 7 (in) are others."""
    assert {name[5:28] for name in trained_names(NAMES, "xlayer")} == {
        "up_blocks.2.attentions.0"[:23]
    }
    assert all(
        "down_blocks.1.attentions.0" in name and "attn1" in name
        for name in trained_names(NAMES, "selflayer")
    )


@pytest.mark.parametrize(
    ("part", "layers"),
    [("text_encoder:1", {1}), ("text_encoder:0,1", {0, 1}), ("text_encoder:11", {11})],
)
def test_layers_are_numbers(part: str, layers: set[int]) -> None:
    """Fails when layer 1 is matched as text, so that layers 10 and 11 are trained too."""
    assert {int(name.split(".")[3]) for name in trained_names(NAMES, part)} == layers


def test_the_text_encoder_without_its_embeddings() -> None:
    """Fails when embeddings move, or the final norm does not."""
    assert trained_names(NAMES, "text_encoder") == set(TEXT_NAMES) - {
        "text_encoder.embeddings.token_embedding.weight"
    }
    assert trained_names(NAMES, "text_encoder:2:ffn") == {
        "text_encoder.encoder.layers.2.mlp.fc1.weight"
    }
    assert trained_names(NAMES, "text_encoder::attn") == {
        name for name in TEXT_NAMES if "self_attn" in name
    }


def test_parts_are_joined() -> None:
    """Fails when only one of several parts counts."""
    assert trained_names(NAMES, "xattn+text_encoder:0") == trained_names(
        NAMES, "xattn"
    ) | trained_names(NAMES, "text_encoder:0")


@pytest.mark.parametrize("part", ["xlayer", "text_encoder:7"])
def test_an_empty_selection_is_an_error(part: str) -> None:
    """Fails when a model without the named blocks is silently trained nowhere."""
    with pytest.raises(InputError, match="selects no weight"):
        text_to_image(model=pipeline_folder(), part=part)


@pytest.mark.parametrize("part", ["crossattn", "text_encoder:a", "text_encoder:0:norm", ""])
def test_an_unknown_part_names_the_known_ones(part: str) -> None:
    """Fails when a misspelt part is taken for something."""
    with pytest.raises(InputError, match=r"xattn|should look like"):
        trained_names(NAMES, part)


@pytest.mark.parametrize(
    "part", [*sorted(set(UNET) - {"xlayer", "selflayer"}), "text_encoder", "text_encoder:1"]
)
def test_only_the_part_takes_gradients(part: str) -> None:
    """Fails when something outside the part, or the image encoder, is trained."""
    backbone = text_to_image(part=part)
    names = [name for name, _ in backbone.named_parameters()]
    assert {
        name for name, weight in backbone.named_parameters() if weight.requires_grad
    } == trained_names(names, part)
    assert not any(weight.requires_grad for weight in backbone.vae.parameters())
