"""Networks and weights of language models, from transformers folders and checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mu.backbones.export import export
from mu.backbones.language.causal_lm import CausalLM
from mu.backbones.lora import LoRA
from mu.utils.errors import InputError
from tests.backbones.test_lora import fill
from tests.support.doubles_text import causal_lm, folder
from tests.support.families import family_folder


def gemma(target: Path) -> str:
    """Folder of a tiny Gemma 2, whose attention has no sdpa form in transformers."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=16,
    )
    Gemma2ForCausalLM(config).save_pretrained(target)
    return str(target)


def test_the_default_attention_is_that_of_the_model(tmp_path: Path) -> None:
    network: Any = CausalLM(gemma(tmp_path)).network
    assert network.config._attn_implementation == "eager"
    llama: Any = causal_lm().network
    assert llama.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2", "unknown"])
@pytest.mark.parametrize("init_seed", [None, 0])
def test_attention_that_the_model_lacks_names_the_option(
    attention: str, init_seed: int | None, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=rf"with attention '{attention}' .*; set backbone\.attention to eager"
    ):
        CausalLM(gemma(tmp_path), attention=attention, init_seed=init_seed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value * torch.nan, "NaN or infinity in"),
        (lambda value: value.to(torch.int8), "int8"),
        (lambda value: value.to(torch.complex64), "complex64"),
    ],
)
def test_values_that_are_no_weights_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = load_file(f"{folder()}/model.safetensors")
    tensors["model.norm.weight"] = change(tensors["model.norm.weight"])
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=message):
        causal_lm(weights=str(tmp_path / "other.safetensors"))


# ---- published forms -----------------------------------------------------------------------------


def logits(backbone: CausalLM) -> Tensor:
    with torch.no_grad():
        return backbone.network(input_ids=torch.arange(12)[None] + 1, use_cache=False).logits


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt2", "llama_tied"])
@pytest.mark.parametrize("form", ["file", "shards", "index", "torch_shards"])
def test_published_files_are_weights(family: str, form: str, tmp_path: Path) -> None:
    """A single file or shards, whose names are those before transformers stacks the experts."""
    original = CausalLM(family_folder(family)).eval()
    tensors = load_file(f"{family_folder(family)}/model.safetensors")
    source = tmp_path / "model.safetensors"
    if form == "file":
        save_file(tensors, source)
    else:
        source = write_shards(tensors, tmp_path, form)
    other = CausalLM(family_folder(family), init_seed=3).eval()
    assert not torch.allclose(logits(other), logits(original), atol=1e-3)
    again = CausalLM(family_folder(family), init_seed=3, weights=str(source)).eval()
    assert torch.equal(logits(again), logits(original))


def write_shards(tensors: dict[str, Tensor], folder: Path, form: str) -> Path:
    """Two shards and their index; the folder, or the index itself."""
    stem = "pytorch_model" if form == "torch_shards" else "model"
    suffix = "bin" if form == "torch_shards" else "safetensors"
    names = sorted(tensors)
    weight_map = {}
    for position, shard_names in enumerate((names[::2], names[1::2]), 1):
        file = f"{stem}-{position:05}-of-00002.{suffix}"
        shard = {name: tensors[name].clone() for name in shard_names}
        if suffix == "bin":
            torch.save(shard, folder / file)
        else:
            save_file(shard, folder / file)
        weight_map |= dict.fromkeys(shard_names, file)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index if form == "index" else folder


def test_an_index_without_its_files_is_refused(tmp_path: Path) -> None:
    tensors = load_file(f"{folder()}/model.safetensors")
    index = write_shards(tensors, tmp_path, "index")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"names model-00002-of-00002\.safetensors, which is not"):
        causal_lm(weights=str(index))
    index.write_text('{"weight_map": {"a": "../model.safetensors"}}')
    with pytest.raises(InputError, match=r"which is not beside it"):
        causal_lm(weights=str(index))


class Options:
    """Options of a training program."""


@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_whose_torch_file_has_foreign_objects_is_read(
    shards: bool, tmp_path: Path
) -> None:
    tensors = load_file(f"{folder()}/model.safetensors")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{folder()}/{name}", tmp_path)
    if shards:
        write_shards(tensors, tmp_path, "torch_shards")
        file = tmp_path / "pytorch_model-00001-of-00002.bin"
        torch.save({**torch.load(file), "options": Options()}, file)
    else:
        torch.save({**tensors, "options": Options()}, tmp_path / "pytorch_model.bin")
    loaded = CausalLM(str(tmp_path)).eval()
    assert torch.equal(logits(loaded), logits(causal_lm().eval()))
    if not shards:
        del tensors["model.norm.weight"]
        torch.save({**tensors, "options": Options()}, tmp_path / "pytorch_model.bin")
        with pytest.raises(InputError, match=r"lacks 1 weights .*model\.norm\.weight"):
            CausalLM(str(tmp_path))


# ---- folders of adapters as the model ------------------------------------------------------------


def adapter_folder(target: Path, base: str | None = None) -> tuple[Path, Tensor]:
    """Folder of exported adapters, and the logits with them."""
    backbone = causal_lm(lora=LoRA(r=2, lora_alpha=6)).eval()
    fill(backbone)
    path = export(backbone, target / "adapter", "adapter")
    if base is not None:
        settings = json.loads((path / "adapter_config.json").read_text())
        settings["base_model_name_or_path"] = base
        (path / "adapter_config.json").write_text(json.dumps(settings))
    return path, logits(backbone)


def test_a_folder_of_adapters_is_a_model_with_its_base(tmp_path: Path) -> None:
    path, expected = adapter_folder(tmp_path)
    merged = CausalLM(str(path)).eval()
    assert torch.allclose(logits(merged), expected, atol=1e-5)
    assert not [name for name in merged.state_dict() if "lora" in name]
    assert merged.tokenizer.eos_token == causal_lm().tokenizer.eos_token
    assert len(merged.generate([[1, 5, 6]], 2)) == 1
    onward = CausalLM(str(path), lora=LoRA(r=3)).eval()
    assert torch.allclose(logits(onward), expected, atol=1e-5)
    assert {name for name, p in onward.named_parameters() if p.requires_grad} == {
        name for name, _ in onward.named_parameters() if "lora_" in name
    }
    folder_again = export(merged, tmp_path / "model")
    assert torch.allclose(logits(CausalLM(str(folder_again)).eval()), expected, atol=1e-5)
    new = merged.fresh(3)
    assert not torch.allclose(logits(new.eval()), expected, atol=1e-2)


@pytest.mark.parametrize(
    ("base", "message"), [("./none", r"the base model \./none"), ("", "names no base")]
)
def test_adapters_without_their_base_name_the_cure(base: str, message: str, tmp_path: Path) -> None:
    path, _ = adapter_folder(tmp_path, base)
    with pytest.raises(InputError, match=rf"{message}.*; set model to the base model, and weights"):
        CausalLM(str(path))
