"""Export in one file of CompVis' names, read again by `mu import`, by mu and by diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from mu.backbones import LoRA, TextToImage
from mu.backbones.export import export
from mu.backbones.export.single_file import compvis_state, unet_name
from mu.cli.main import main
from mu.utils.errors import InputError
from tests.support.compvis_names import (
    deep_unet,
    open_clip_names,
    text_names,
    under,
    unet_names,
    vae_names,
)
from tests.support.doubles import pipeline_folder, text_to_image
from tests.support.helpers import different, weights


def deep_folder(folder: Path) -> str:
    """A Stable Diffusion of two layers a block and four levels, as the published ones."""
    pipeline = text_to_image().pipeline()
    pipeline.unet = deep_unet()
    pipeline.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("deep", [False, True])
def test_the_file_is_read_again_bit_for_bit(deep: bool, tmp_path: Path) -> None:
    """Fails when a block or a layer is numbered otherwise than in CompVis' code."""
    base = deep_folder(tmp_path / "base") if deep else pipeline_folder()
    backbone = TextToImage(base, init_seed=3)
    export(backbone, tmp_path / "file", form="single-file")
    file = tmp_path / "file" / "model.safetensors"
    assert main(["import", str(file), str(tmp_path / "folder"), "--base", base]) == 0
    assert different(weights(TextToImage(str(tmp_path / "folder"))), weights(backbone)) == []
    assert different(weights(TextToImage(base, weights=str(file))), weights(backbone)) == []
    names = compvis_state(backbone.unet, backbone.vae, backbone.text_encoder)
    layers = 2 if deep else 1
    text: dict[str, Any] = text_names(dict(backbone.text_encoder.state_dict()))
    del text["text_model.embeddings.position_ids"]
    expected = {
        **under("model.diffusion_model.", unet_names(dict(backbone.unet.state_dict()), layers)),
        **under("first_stage_model.", vae_names(dict(backbone.vae.state_dict()), 2)),
        **under("cond_stage_model.transformer.", text),
    }
    assert different(names, expected) == []


def test_diffusers_reads_the_file_alone(tmp_path: Path) -> None:
    """Fails when another program would draw other images from the file."""
    backbone = text_to_image(init_seed=3).eval()
    export(backbone, tmp_path / "file", form="single-file")
    pipeline = StableDiffusionPipeline.from_single_file(
        str(tmp_path / "file" / "model.safetensors"),
        config=pipeline_folder(),
        local_files_only=True,
        safety_checker=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        ["a star"],
        generator=[torch.Generator().manual_seed(4)],
        output_type="pt",
        num_inference_steps=3,
        guidance_scale=2.0,
        height=8,
        width=8,
    ).images
    assert torch.allclose(images, backbone.generate_prompts(["a star"], [4]), atol=1e-5)


def test_a_text_encoder_of_open_clip_has_its_names(tmp_path: Path) -> None:
    """Fails when Stable Diffusion 2's text encoder is written as that of the first."""
    pipeline = text_to_image(init_seed=3).pipeline()
    pipeline.text_encoder.config.hidden_act = "gelu"
    backbone = TextToImage(pipeline=pipeline)
    export(backbone, tmp_path / "file", form="single-file")
    tensors = load_file(tmp_path / "file" / "model.safetensors")
    stored = {
        name.removeprefix("cond_stage_model.model."): value
        for name, value in tensors.items()
        if name.startswith("cond_stage_model.")
    }
    expected = open_clip_names(dict(backbone.text_encoder.state_dict()))
    unused = {"text_projection", "logit_scale", "transformer.resblocks.23.ln_1.weight"}
    assert different(stored, {k: v for k, v in expected.items() if k not in unused}) == []


def test_adapters_are_merged_into_the_file(tmp_path: Path) -> None:
    """Fails when a model with adapters is written without them."""
    backbone = text_to_image(part="xattn", lora=LoRA(r=2))
    with torch.no_grad():
        for name, weight in backbone.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    export(backbone, tmp_path / "file", form="single-file")
    again = text_to_image(weights=str(tmp_path / "file" / "model.safetensors"))
    prompts, seeds = ["a red circle"], [1]
    images = [model.eval().generate_prompts(prompts, seeds) for model in (backbone, again)]
    assert torch.allclose(*images, atol=1e-4)


def test_blocks_of_different_depth_are_refused() -> None:
    """Fails when a UNet that CompVis' code cannot number is written under wrong names."""
    unet: Any = text_to_image().unet
    unet.register_to_config(layers_per_block=[1, 2])
    with pytest.raises(InputError, match="layers per block"):
        unet_name("down_blocks.0.resnets.0.conv1.weight", unet.config)
