"""Export of the edited tensors alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import mu as package
from mu.backbones import LoRA, TextToImage
from mu.backbones.export import export
from mu.utils.errors import InputError
from tests.support.diffusion_exports import PROMPTS, RESULTS, metadata, moved, same, state, usage
from tests.support.doubles import pipeline_folder, text_to_image


def test_edited_tensors_are_the_part_alone_and_make_the_model_again(tmp_path: Path) -> None:
    backbone = moved("xattn")
    folder = export(backbone, tmp_path / "edited", "edited", RESULTS)
    tensors = load_file(folder / "model.safetensors")
    base = text_to_image()
    assert set(tensors) == {
        name for name, weight in backbone.named_parameters() if weight.requires_grad
    }
    assert sum(file.stat().st_size for file in folder.iterdir()) < 60_000  # of 220,000
    assert metadata(folder) == {
        "format": "pt",
        "base_model": pipeline_folder(),
        "base_hash": base.base_hash(),
        "method": "ESD",
        "concept": "circle",
        "task": "pictures",
        "part": "xattn",
        "dtype": "float32",
        "mu": package.__version__,
    }
    again = text_to_image(weights=str(folder))
    assert same(state(again), state(backbone))
    assert same(state(text_to_image(weights=str(folder / "model.safetensors"))), state(backbone))
    pipeline = usage(folder)["pipeline"]
    assert same(state(pipeline.unet), state(backbone.unet))


def test_a_text_encoder_is_edited_likewise(tmp_path: Path) -> None:
    backbone = moved("text_encoder:1")
    folder = export(backbone, tmp_path / "edited", "edited")
    assert {name.split(".")[0] for name in load_file(folder / "model.safetensors")} == {
        "text_encoder"
    }
    assert same(state(text_to_image(weights=str(folder))), state(backbone))
    assert same(state(usage(folder)["pipeline"].text_encoder), state(backbone.text_encoder))


def test_a_changed_sign_of_zero_counts_as_edited(tmp_path: Path) -> None:
    """Mutation: torch.equal, for which 0 is −0."""
    backbone = text_to_image(part="full")
    with torch.no_grad():
        backbone.unet.conv_norm_out.bias.mul_(-1)  # type: ignore[union-attr]
    assert not backbone.unet.conv_norm_out.bias.any()  # type: ignore[union-attr]
    assert list(
        load_file(export(backbone, tmp_path / "edited", "edited") / "model.safetensors")
    ) == ["unet.conv_norm_out.bias"]


def test_what_a_run_began_from_counts_as_edited_too(tmp_path: Path) -> None:
    """Mutation: compared with the weights that the backbone was given, which nobody else has."""
    first = export(moved("noxattn"), tmp_path / "first", "edited")
    second = export(moved("xattn-strict", weights=str(first)), tmp_path / "second", "edited")
    assert metadata(second)["base_hash"] == text_to_image().base_hash()
    names = set(load_file(second / "model.safetensors"))
    assert set(load_file(first / "model.safetensors")) < names and any(
        ".attn2.to_k." in name for name in names
    )


def test_adapters_become_edited_tensors(tmp_path: Path) -> None:
    backbone = moved("xattn-strict", lora=LoRA(r=2))
    folder = export(backbone, tmp_path / "edited", "edited")
    assert all(
        ".attn2.to_k." in name or ".attn2.to_v." in name
        for name in load_file(folder / "model.safetensors")
    )
    again = text_to_image(weights=str(folder)).eval()
    torch.testing.assert_close(
        again.generate_prompts(PROMPTS, [5, 6]),
        backbone.generate_prompts(PROMPTS, [5, 6]),
        rtol=1e-4,
        atol=1e-5,
    )


def test_edited_tensors_take_new_adapters(tmp_path: Path) -> None:
    """Mutation: names as they are without adapters, under which nothing is found; or a hash of the
    adapters too.
    """
    backbone = moved("xattn")
    folder = export(backbone, tmp_path / "edited", "edited")
    adapted = text_to_image(weights=str(folder), part="xattn", lora=LoRA(r=2)).eval()
    torch.testing.assert_close(
        adapted.generate_prompts(PROMPTS, [5, 6]), backbone.generate_prompts(PROMPTS, [5, 6])
    )


def test_tensors_of_another_base_model_are_refused(tmp_path: Path) -> None:
    folder = export(moved("xattn"), tmp_path / "edited", "edited")
    other = export(moved("noxattn"), tmp_path / "other")
    with pytest.raises(
        InputError,
        match=r"tensors edited from .*mu-double.*, whose weights are not those of .*other; load "
        r"that model",
    ):
        TextToImage(str(other), weights=str(folder))
    with pytest.raises(
        InputError,
        match="edited in float32, and the backbone is in bfloat16; give it dtype: float32",
    ):
        text_to_image(weights=str(folder), dtype="bfloat16")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {f"{name}.new": value for name, value in tensors.items()}, tmp_path / "strange.safetensors"
    )
    with pytest.raises(InputError, match=r"strange\.safetensors"):
        text_to_image(weights=str(tmp_path / "strange.safetensors"))


def test_half_precision_is_compared_in_half_precision(tmp_path: Path) -> None:
    """Mutation: the original read in float32, from which every tensor would differ."""
    folder = export(moved("xattn-strict", dtype="bfloat16"), tmp_path / "edited", "edited")
    tensors = load_file(folder / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16} and all(
        "attn2" in name for name in tensors
    )
    assert metadata(folder)["dtype"] == "bfloat16"
