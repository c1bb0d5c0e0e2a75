"""Weights of a text-to-image model by the names of other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mu.utils.errors import InputError
from tests.support.compvis_names import text_names, under, unet_names
from tests.support.doubles import text_to_image
from tests.support.helpers import State, different, weights


def other(component: str) -> State:
    """Random weights of a component of the tiny Stable Diffusion."""
    generator = torch.Generator().manual_seed(1)
    state = getattr(text_to_image(), component).state_dict()
    return {name: torch.randn(value.shape, generator=generator) for name, value in state.items()}


def changed(file: Path) -> State:
    """Weights of the model with those of a file."""
    return weights(text_to_image(weights=str(file)))


def expected(**components: State) -> State:
    """Weights of the model with some in place of its own."""
    names = {
        f"{component}.{name}": value
        for component, state in components.items()
        for name, value in state.items()
    }
    return weights(text_to_image()) | names


def test_edited_tensors_by_a_unets_own_names(tmp_path: Path) -> None:
    """Fails when the files that ESD publishes, a part of a UNet without a prefix, are refused."""
    edited = {name: value for name, value in other("unet").items() if "attn2" in name}
    save_file(edited, tmp_path / "esd-x.safetensors")
    assert different(changed(tmp_path / "esd-x.safetensors"), expected(unet=edited)) == []


def test_components_by_the_names_of_compvis(tmp_path: Path) -> None:
    """Fails when a UNet or text encoder of the first code needs a conversion by hand."""
    unet, text = other("unet"), other("text_encoder")
    tensors = {
        **under("model.diffusion_model.", unet_names(unet, 1)),
        **under("cond_stage_model.transformer.", text_names(text)),
    }
    torch.save({"state_dict": tensors}, tmp_path / "model.ckpt")
    assert different(changed(tmp_path / "model.ckpt"), expected(unet=unet, text_encoder=text)) == []
    torch.save(text_names(text), tmp_path / "text.pt")
    assert different(changed(tmp_path / "text.pt"), expected(text_encoder=text)) == []


def test_a_text_encoder_below_either_name(tmp_path: Path) -> None:
    """Fails when weights saved by one version of transformers are unknown to another."""
    text = other("text_encoder")
    for prefix in ("text_encoder.", "text_encoder.text_model."):
        save_file(under(prefix, text), tmp_path / "text.safetensors")
        assert different(changed(tmp_path / "text.safetensors"), expected(text_encoder=text)) == []


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Fails when a component is loaded in part, or an unknown tensor is passed over."""
    file = tmp_path / "model.safetensors"
    compvis = under("model.diffusion_model.", unet_names(other("unet"), 1))
    text = other("text_encoder")
    for tensors, message in (
        ({"conv_in.weight": torch.zeros(1, 2, 3, 3)}, "of shape"),
        ({"conv_in.weigth": torch.zeros(8)}, "which .* has not"),
        ({**compvis, "control_model.weight": torch.zeros(1)}, "belongs to no"),
        ({name: value for name, value in compvis.items() if ".out." not in name}, "cut off"),
        ({name: text[name] for name in list(text)[:4]}, "the text_encoder .* lacks"),
        ({**compvis, **under("model_ema.", {"decay": torch.zeros(1), "a": torch.zeros(1)})}, "ema"),
    ):
        save_file(tensors, file)
        before = weights(text_to_image())
        with pytest.raises(InputError, match=message):
            text_to_image(weights=str(file))
        assert different(before, weights(text_to_image())) == []
