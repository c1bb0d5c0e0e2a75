"""Every family of language models of transformers: fit, generate, adapters, export, load again."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mu.backbones import CausalLM, LoRA
from mu.backbones.export import export
from mu.backbones.language.decoder import text_weights
from mu.data.batch import Batch
from mu.methods import FineTune
from tests.support.doubles_text import people
from tests.support.families import FAMILIES, MULTIMODAL, family_folder
from tests.support.helpers import fit

FAST = ("gpt2", "gpt_oss", "mamba", "gemma3_images")
ALL = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
    for name in (*FAMILIES, *MULTIMODAL)
]


def batch() -> Batch:
    task = people()
    task.setup()
    data: Any = task.datasets["forget"]
    return data.__getitems__([0, 1, 2])


def loaded(folder: Path | str, family: str) -> nn.Module:
    """Network of a folder by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    auto_class: Any = AutoModelForImageTextToText if family in MULTIMODAL else AutoModelForCausalLM
    return auto_class.from_pretrained(folder)


def trained(backbone: CausalLM) -> CausalLM:
    module = FineTune(
        backbone, optimizer=lambda params: torch.optim.AdamW(params, lr=1e-2, weight_decay=0.0)
    )
    fit(module, people(), 1)
    return backbone.eval()


@torch.no_grad()
def predicted(network: nn.Module, tokens: Batch) -> Tensor:
    return network(
        input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], use_cache=False
    ).logits


@pytest.mark.parametrize("family", ALL)
def test_a_family_is_trained_generates_and_is_exported(family: str, tmp_path: Path) -> None:
    tokens = batch()
    backbone = CausalLM(family_folder(family)).eval()
    before = predicted(backbone.network, tokens)
    trained(backbone)
    logits = predicted(backbone.network, tokens)
    assert not torch.allclose(logits, before, atol=1e-3) and torch.isfinite(logits).all()
    answers = backbone.generate([[1, 5, 6], [1, 7, 8, 9]], 3)
    assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers)
    folder = export(backbone, tmp_path / "model")
    auto_class = "AutoModelForImageTextToText" if family in MULTIMODAL else "AutoModelForCausalLM"
    assert f"{auto_class}.from_pretrained" in (folder / "README.md").read_text()
    assert torch.allclose(predicted(loaded(folder, family).eval(), tokens), logits, atol=1e-5)
    again = CausalLM(str(folder)).eval()
    assert torch.allclose(predicted(again.network, tokens), logits, atol=1e-5)


@pytest.mark.parametrize("family", ALL)
def test_a_family_has_decoder_layers(family: str) -> None:
    """Hidden states are those that transformers returns, of the network cut after the layer."""
    tokens = batch()
    backbone = CausalLM(family_folder(family)).eval()
    assert backbone.layers == 2
    network: Any = backbone.network
    with torch.no_grad():
        states = network(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        first = backbone.hidden(tokens, 0)
        real = tokens["attention_mask"].bool()
        # some return the embeddings first, some not
        assert any(torch.allclose(first[real], state[real], atol=1e-5) for state in states[:2])
        assert backbone.hidden(tokens, 1).shape == first.shape
        assert backbone.predict(tokens).shape[-1] == backbone.vocabulary


@pytest.mark.parametrize("family", ALL)
def test_adapters_of_a_family_are_trained_and_read_by_peft(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    tokens = batch()
    backbone = CausalLM(family_folder(family), lora=LoRA(r=2, lora_alpha=4)).eval()
    before = predicted(backbone.network, tokens)
    trained(backbone)
    logits = predicted(backbone.network, tokens)
    assert not torch.allclose(logits, before, atol=1e-4) and torch.isfinite(logits).all()
    folder = export(backbone, tmp_path / "adapter", "adapter")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        network: Any = PeftModel.from_pretrained(loaded(family_folder(family), family), str(folder))
    assert torch.allclose(predicted(network.eval(), tokens), logits, atol=1e-5)
    merged = export(backbone, tmp_path / "model")
    assert torch.allclose(predicted(loaded(merged, family).eval(), tokens), logits, atol=1e-4)


@pytest.mark.parametrize("family", [*FAST, "llama4_images"])
def test_of_a_model_that_reads_images_the_weights_of_texts_are_trained(family: str) -> None:
    backbone = CausalLM(family_folder(family))
    names = {name for name, weight in backbone.network.named_parameters() if weight.requires_grad}
    assert names == set(text_weights(backbone.network))
    vision = [name for name, _ in backbone.network.named_parameters() if "vision" in name]
    assert bool(vision) == (family in MULTIMODAL) and not set(vision) & names
    assert "lm_head.weight" in names or any("embed" in name or "wte" in name for name in names)
