"""Files of adapters: PEFT computes what mu computes, both ways, and nothing is rescaled unseen."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mu.backbones import CausalLM, LoRA
from mu.backbones.export import export
from mu.utils.errors import InputError
from tests.backbones.test_lora import fill
from tests.support.families import VOCABULARY, family_folder

FAMILIES = ("llama", "deepseek_v3")


def logits(network: Any) -> Tensor:
    tokens = torch.arange(24).view(2, 12) % VOCABULARY
    with torch.no_grad():
        return network(input_ids=tokens, use_cache=False).logits


def adapted(family: str = "llama", lora: LoRA | None = None, **changes: Any) -> CausalLM:
    lora = LoRA(r=2, lora_alpha=6) if lora is None else lora
    return CausalLM(family_folder(family), lora=lora, **changes).eval()


def exported(folder: Path, backbone: CausalLM) -> Path:
    fill(backbone)
    return export(backbone, folder / "adapter", "adapter")


def peft_folder(folder: Path, family: str = "llama", **settings: Any) -> tuple[Path, Tensor]:
    """Folder of adapters that PEFT itself writes, and PEFT's logits."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(**{"r": 2, "lora_alpha": 6, "target_modules": ["q_proj"], **settings})
    base: Any = AutoModelForCausalLM.from_pretrained(family_folder(family))
    torch.manual_seed(2)
    model: Any = get_peft_model(base, config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    model.eval().save_pretrained(folder / "peft")
    return folder / "peft", logits(model)


# ---- written -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_computes_the_same_logits_from_an_export(family: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    backbone = adapted(family)
    folder = exported(tmp_path, backbone)
    base: Any = AutoModelForCausalLM.from_pretrained(family_folder(family))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded: Any = PeftModel.from_pretrained(base, str(folder)).eval()
    assert torch.allclose(logits(loaded), logits(backbone.network), atol=1e-5)
    assert not torch.allclose(logits(loaded), logits(CausalLM(family_folder(family)).network))


def test_the_configuration_has_keys_of_peft_alone(tmp_path: Path) -> None:
    from dataclasses import fields

    from peft import LoraConfig

    folder = exported(tmp_path, adapted())
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert set(settings) <= {field.name for field in fields(LoraConfig)}
    assert settings["lora_alpha"] == 6
    assert settings["base_model_name_or_path"] == family_folder("llama")
    with safe_open(folder / "adapter_model.safetensors", "pt") as opened:
        assert len(opened.metadata()["mu_base_hash"]) == 16


@pytest.mark.parametrize("family", FAMILIES)
def test_exported_adapters_are_trained_on_or_merged(family: str, tmp_path: Path) -> None:
    backbone = adapted(family)
    folder = str(exported(tmp_path, backbone))
    again = adapted(family, weights=folder)
    assert torch.equal(logits(again.network), logits(backbone.network))
    merged = CausalLM(family_folder(family), weights=folder).eval()
    assert not [name for name in merged.state_dict() if "lora" in name or "base_layer" in name]
    assert all(weight.requires_grad for weight in merged.network.parameters())
    assert torch.allclose(logits(merged.network), logits(backbone.network), atol=1e-5)


# ---- read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora_alpha": 16},
        {"use_rslora": True},
        {"use_dora": True},
        {"bias": "all"},
        {"rank_pattern": {"layers.1.self_attn.q_proj": 4}},
        {"alpha_pattern": {"layers.1.self_attn.q_proj": 1}},
        {"target_modules": "all-linear"},
        {"modules_to_save": ["lm_head"]},
    ],
    ids=str,
)
def test_merged_adapters_compute_what_peft_computes(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    folder, expected = peft_folder(tmp_path, **settings)
    merged = CausalLM(family_folder("llama"), weights=str(folder)).eval()
    assert torch.allclose(logits(merged.network), expected, atol=1e-5)
    assert not hasattr(merged.network, "peft_config")


@pytest.mark.parametrize(
    ("settings", "lora"),
    [
        ({}, LoRA(r=2, lora_alpha=6)),
        ({"lora_alpha": 16}, LoRA(r=2, lora_alpha=16)),
        ({"use_rslora": True}, LoRA(r=2, lora_alpha=6, use_rslora=True)),
        ({"use_dora": True}, LoRA(r=2, lora_alpha=6, use_dora=True)),
    ],
    ids=("plain", "alpha", "rslora", "dora"),
)
def test_adapters_of_the_same_form_are_trained_on(
    settings: dict[str, Any], lora: LoRA, tmp_path: Path
) -> None:
    folder, expected = peft_folder(tmp_path, **settings)
    backbone = adapted(lora=lora, part="q_proj", weights=str(folder))
    assert torch.allclose(logits(backbone.network), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"lora_alpha": 16},
            "trained with lora_alpha 16, .* has lora_alpha 6; give it lora: {lora_alpha 16}",
        ),
        ({"r": 4}, "trained with r 4, .* has r 2"),
        ({"use_rslora": True}, "trained with use_rslora True, .* has use_rslora False"),
        ({"use_dora": True}, "trained with use_dora True, .* has use_dora False"),
        ({"bias": "all"}, "have bias 'all', which a lora of mu does not train; leave out"),
        ({"alpha_pattern": {"layers.1.self_attn.q_proj": 1}}, "have alpha_pattern"),
        ({"target_modules": ["q_proj", "v_proj"]}, "do not fit those of the backbone"),
        ({"modules_to_save": ["lm_head"]}, "have modules_to_save"),
    ],
    ids=str,
)
def test_adapters_of_another_form_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder, _ = peft_folder(tmp_path, **settings)
    with pytest.raises(InputError, match=message):
        adapted(part="q_proj", weights=str(folder))


def test_adapters_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path, adapted())
    with pytest.raises(InputError, match="whose weights are not those of"):
        CausalLM(family_folder("qwen2"), weights=str(folder))
    peft, _ = peft_folder(tmp_path)
    with pytest.raises(InputError, match=r"adapters in .* do not fit .*gpt2"):
        CausalLM(family_folder("gpt2"), weights=str(peft))


def test_damaged_adapters_are_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path, adapted())
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name] * torch.nan}, file)
    with pytest.raises(InputError, match="NaN or infinity"):
        adapted(weights=str(folder))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        CausalLM(family_folder("llama"), weights=str(folder))
    file.unlink()
    with pytest.raises(InputError, match="may not have been saved to its end"):
        adapted(weights=str(folder))
