"""Networks from `from_pretrained`: every weight comes from the file, and is a finite number."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mu.backbones.embedded import path
from mu.utils.errors import InputError
from mu.utils.pretrained import load_pretrained

NETWORKS = {
    "language": ("transformers.AutoModelForCausalLM", "authors", ""),
    "unet": ("diffusers.UNet2DConditionModel", "shapes", "unet"),
    "autoencoder": ("diffusers.AutoencoderKL", "shapes", "vae"),
    "text_encoder": ("transformers.CLIPTextModel", "shapes", "text_encoder"),
}


def remove(tensors: dict[str, Tensor], name: str) -> None:
    del tensors[name]


def add(tensors: dict[str, Tensor], name: str) -> None:
    tensors["unknown.weight"] = torch.zeros(2)


def reshape(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = torch.cat([tensors[name], tensors[name][:1]]).contiguous()


def spoil(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name].view(-1)[0] = torch.nan


CHANGES: dict[Callable[[dict[str, Tensor], str], None], str] = {
    remove: "lacks 1 weights",
    add: "unknown.weight",
    reshape: "of shape",
    spoil: "NaN or infinity in 1 of",
    lambda tensors, name: tensors.update({name: tensors[name].to(torch.int32)}): "int32",
    lambda tensors, name: tensors.update({name: tensors[name] > 0}): "bool",
}


def load(folder: Path, network: str) -> Any:
    import diffusers
    import transformers

    library, class_name = NETWORKS[network][0].split(".")
    network_class = getattr(
        {"diffusers": diffusers, "transformers": transformers}[library], class_name
    )
    return load_pretrained(
        network_class, str(folder), f"the {network}", subfolder=NETWORKS[network][2]
    )


def copy(folder: Path, network: str) -> Path:
    """Copy of an embedded component, and its file of weights."""
    _, name, subfolder = NETWORKS[network]
    shutil.copytree(Path(path(name)) / subfolder, folder / subfolder, dirs_exist_ok=True)
    return next((folder / subfolder).glob("*.safetensors"))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_whole_file_gives_its_own_weights(network: str, tmp_path: Path) -> None:
    stored = load_file(copy(tmp_path, network))
    tensors = {name.removeprefix("text_model."): value for name, value in stored.items()}
    loaded = load(tmp_path, network).state_dict()
    state = {name.removeprefix("text_model."): value for name, value in loaded.items()}
    for name in set(tensors) & set(state):
        assert torch.equal(state[name], tensors[name].to(state[name].dtype)), name
    assert set(state) & set(tensors)


@pytest.mark.parametrize("change", CHANGES, ids=list(CHANGES.values()))
@pytest.mark.parametrize("network", NETWORKS)
def test_a_file_with_other_weights_is_refused(
    network: str, change: Callable[[dict[str, Tensor], str], None], tmp_path: Path
) -> None:
    file = copy(tmp_path, network)
    tensors = load_file(file)
    matrices = [name for name, value in tensors.items() if value.dim() >= 2 and "embed" not in name]
    change(tensors, sorted(matrices)[0])
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(InputError, match=CHANGES[change]):
        load(tmp_path, network)


def test_a_torch_file_of_integers_is_refused(tmp_path: Path) -> None:
    file = copy(tmp_path, "language")
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    tensors[name] = tensors[name].to(torch.int8)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    file.unlink()
    with pytest.raises(InputError, match="int8"):
        load(tmp_path, "language")


def test_buffers_of_older_files_are_passed_over(tmp_path: Path) -> None:
    file = copy(tmp_path, "language")
    tensors = load_file(file)
    save_file({**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, file)
    load(tmp_path, "language")
