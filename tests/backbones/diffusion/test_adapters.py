"""Files of adapters: of our export, of other trainers, in place of adapters or merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mu.backbones import LoRA, TextToImage
from mu.backbones.export import export
from mu.backbones.lora import merge_adapters
from mu.utils.errors import InputError
from tests.support.doubles import text_to_image
from tests.support.noise_predictors import forget_part

PART = "xattn+text_encoder"
FILE = "pytorch_lora_weights.safetensors"


def adapted(part: str = PART, **options: Any) -> TextToImage:
    """The tiny Stable Diffusion with adapters that change its images."""
    backbone = text_to_image(part=part, lora=LoRA(**{"r": 2, "lora_alpha": 3.0, **options}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in backbone.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return backbone.eval()


def kohya_names(tensors: dict[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """The same adapters by the names of kohya's trainer."""
    renamed = {}
    for name, value in tensors.items():
        component, path = name.rsplit(".lora_", 1)[0].split(".", 1)
        if component == "text_encoder" and not path.startswith("text_model."):
            path = f"text_model.{path}"
        prefix = "lora_unet_" if component == "unet" else "lora_te_"
        layer = prefix + path.replace(".", "_")
        renamed[f"{layer}.lora_{'down' if '.lora_A.' in name else 'up'}.weight"] = value
        renamed[f"{layer}.alpha"] = torch.tensor(alpha)
    return renamed


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of exported adapters, with a copy by other names."""
    folder = tmp_path_factory.mktemp("adapters") / "export"
    export(adapted(), folder, form="adapter")
    renamed = kohya_names(load_file(folder / FILE), 3.0)
    save_file(renamed, folder / "kohya.safetensors")
    torch.save(renamed, folder / "kohya.bin")
    return folder


def images(backbone: TextToImage) -> torch.Tensor:
    """Images of two prompts."""
    return backbone.eval().generate_prompts(["a red circle", "a star"], [3, 4])


@pytest.mark.parametrize("file", ["", FILE, "kohya.safetensors", "kohya.bin"])
@pytest.mark.parametrize("merged", [False, True])
def test_adapters_of_a_file_give_the_same_images(exported: Path, file: str, merged: bool) -> None:
    """Fails when a file is not found, its alpha is passed over, or a layer gets no adapter."""
    lora = None if merged else LoRA(r=2, lora_alpha=3.0)
    backbone = text_to_image(part=PART, lora=lora, weights=str(exported / file))
    assert torch.allclose(images(backbone), images(adapted()), atol=1e-5)
    trained = {name for name, weight in backbone.named_parameters() if weight.requires_grad}
    expected = text_to_image(part=PART, lora=lora)
    assert trained == {name for name, weight in expected.named_parameters() if weight.requires_grad}
    assert backbone.state_dict().keys() == expected.state_dict().keys()
    export(backbone, exported.parent / f"again-{merged}-{file or 'folder'}")


@pytest.mark.parametrize("options", [{"use_rslora": True}, {"use_dora": True}])
def test_variants_of_adapters_are_read_again(options: dict[str, Any], tmp_path: Path) -> None:
    """Fails when the export leaves out how adapters are scaled or altered."""
    backbone = adapted(**options)
    export(backbone, tmp_path / "adapter", form="adapter")
    again = text_to_image(part=PART, weights=str(tmp_path / "adapter"))
    assert torch.allclose(images(again), images(backbone), atol=1e-5)


@pytest.mark.parametrize(
    ("lora", "part", "message"),
    [
        ({"r": 3, "lora_alpha": 3.0}, PART, "trained with r: 2, lora_alpha: 3.0.*lora has r: 3"),
        ({"r": 2, "lora_alpha": 4.0}, PART, "lora_alpha: 3.0.*lora_alpha: 4.0"),
        (
            {"r": 2, "lora_alpha": 3.0, "use_rslora": True},
            PART,
            "use_rslora: false.*use_rslora: true",
        ),
        ({"r": 2, "lora_alpha": 3.0}, "xattn", "the backbone has none"),
        ({"r": 2, "lora_alpha": 3.0}, "full", "no adapter for unet"),
    ],
)
def test_adapters_of_another_form_are_refused(
    exported: Path, lora: dict[str, Any], part: str, message: str
) -> None:
    """Fails when adapters are scaled by the backbone's own alpha, or some are left at zero."""
    with pytest.raises(InputError, match=message):
        text_to_image(part=part, lora=LoRA(**lora), weights=str(exported / FILE))


def test_adapters_of_another_model_are_refused(exported: Path, tmp_path: Path) -> None:
    """Fails when layers that the model does not have are passed over, or its base is another."""
    tensors = load_file(exported / FILE)
    extra = {
        name.replace("down_blocks.0", "down_blocks.7"): value for name, value in tensors.items()
    }
    save_file(extra, tmp_path / "extra.safetensors")
    with pytest.raises(InputError, match="the model has layers for"):
        text_to_image(weights=str(tmp_path / "extra.safetensors"))
    with pytest.raises(InputError, match="whose weights are not those of"):
        text_to_image(init_seed=3, weights=str(exported))
    save_file({"lora_unet_conv_in.hada_w1_a": torch.ones(2, 2)}, tmp_path / "loha.safetensors")
    with pytest.raises(InputError, match="plain low-rank adapters"):
        text_to_image(weights=str(tmp_path / "loha.safetensors"))


def test_adapters_begin_as_nothing_and_can_be_folded_in() -> None:
    """Fails when LoRA changes the model before training, trains the base, or merging loses it."""
    plain = text_to_image().eval()
    backbone = text_to_image(part="xattn", lora=LoRA(r=2)).eval()
    trained = [
        (name, weight) for name, weight in backbone.named_parameters() if weight.requires_grad
    ]
    assert trained
    assert all("attn2" in name and "lora_" in name for name, _ in trained)
    part = plain.prepare(forget_part("text"), 0)
    assert torch.allclose(plain.predict(part), backbone.predict(part), atol=1e-6)
    with torch.no_grad():
        for _, weight in trained:
            weight.add_(0.05)
    moved = backbone.predict(part).detach()
    assert not torch.allclose(moved, plain.predict(part), atol=1e-3)
    merge_adapters(backbone)
    assert set(backbone.state_dict()) == set(plain.state_dict())
    assert torch.allclose(backbone.predict(part), moved, atol=1e-5)
