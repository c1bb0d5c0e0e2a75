"""Folders of diffusers: files of a variant, damaged and foreign components."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mu.backbones import Autoencoder, ClassConditionalDiffusion, TextToImage
from mu.backbones.diffusion.pipeline_parts import file_variant
from mu.backbones.export import export
from mu.utils.errors import InputError
from tests.support.doubles import class_conditional, pipeline_folder
from tests.support.helpers import different, weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny Stable Diffusion."""
    return Path(copytree(pipeline_folder(), tmp_path / "model"))


def _add_variant(folder: Path, variant: str) -> None:
    for file in list(folder.rglob("*.safetensors")):
        tensors = {name: value.half() for name, value in load_file(file).items()}
        save_file(tensors, file.with_name(f"{file.stem}.{variant}.safetensors"))


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_a_folder_of_one_variant_is_read(folder: Path, variant: str) -> None:
    """Fails when files of half precision alone are not found, or those without a variant are not
    preferred.
    """
    expected = weights(TextToImage(str(folder)))
    _add_variant(folder, variant)
    assert different(weights(TextToImage(str(folder))), expected) == []
    for file in folder.rglob("*.safetensors"):
        if f".{variant}." not in file.name:
            file.unlink()
    half = weights(TextToImage(str(folder)))
    assert all(torch.equal(value, expected[name].half().float()) for name, value in half.items())


def test_several_variants_are_refused(folder: Path) -> None:
    """Fails when one of two variants is taken at random."""
    for variant in ("fp16", "non_ema"):
        save_file({"a": torch.zeros(1)}, folder / f"model.{variant}.safetensors")
    with pytest.raises(InputError, match="variants fp16, non_ema alone"):
        file_variant(folder)


@pytest.mark.parametrize("component", ["unet", "text_encoder", "vae"])
@pytest.mark.parametrize("fault", ["lacks", "has", "of shape"])
def test_weights_that_do_not_fit_are_refused(folder: Path, component: str, fault: str) -> None:
    """Fails when a missing weight is drawn at random, or another model's are passed over."""
    file = next((folder / component).glob("*.safetensors"))
    tensors = load_file(file)
    name = next(key for key, value in tensors.items() if value.dim() > 1)
    if fault == "has":
        tensors["another.weight"] = torch.zeros(2, 2)
    elif fault == "lacks":
        del tensors[name]
    else:
        tensors[name] = torch.cat([tensors[name]] * 2)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"the {component} .*{fault}"):
        TextToImage(str(folder))
    if component == "vae":
        with pytest.raises(InputError, match=f"the autoencoder .*{fault}"):
            Autoencoder(str(folder))


def test_a_configuration_of_more_layers_than_the_file_is_refused(folder: Path) -> None:
    """Fails when the layers that no file has begin at random."""
    _edit(folder / "unet" / "config.json", layers_per_block=2)
    with pytest.raises(InputError, match=r"the unet .*lacks .* weights"):
        TextToImage(str(folder))


def test_a_class_conditional_model_needs_all_of_its_weights(tmp_path: Path) -> None:
    """Fails when a missing weight is drawn at random."""
    export(class_conditional(), tmp_path / "model")
    file = next((tmp_path / "model" / "unet").glob("*.safetensors"))
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weights"):
        ClassConditionalDiffusion(str(tmp_path / "model"))


def test_a_unet_of_another_task_is_refused(folder: Path) -> None:
    """Fails when a model for inpainting answers with torch's error at the first step."""
    from diffusers import UNet2DConditionModel

    config = json.loads((folder / "unet" / "config.json").read_text())
    for changes, message in (
        ({"in_channels": 9}, "9 channels .* inpainting"),
        ({"out_channels": 8}, "gives 8"),
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"cross_attention_dim": 24}, "belong to two models"),
    ):
        UNet2DConditionModel.from_config(config | changes).save_pretrained(folder / "unet")
        with pytest.raises(InputError, match=message):
            TextToImage(str(folder))


def test_an_index_of_unknown_classes_is_refused(folder: Path) -> None:
    """Fails when a name that is no class of the library is looked up or called."""
    for class_name in ("UNetOfTomorrow", "pipelines", None, "logging"):
        _edit(folder / "model_index.json", unet=["diffusers", class_name])
        with pytest.raises(InputError, match="no such class"):
            TextToImage(str(folder))


def test_one_file_in_place_of_a_folder_names_the_import(tmp_path: Path) -> None:
    """Fails when a checkpoint of one file is taken for a hub id."""
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="mu import"):
        TextToImage(str(file))
