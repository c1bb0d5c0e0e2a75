"""Two models that answer as one: the logits, what follows from them, generation with two caches;
the assistant that is part of a model.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.backbones import CausalLM, LoRA
from mu.backbones.export import export
from mu.backbones.language.generation import Decoding
from mu.backbones.language.two_models import GenericLogits, LogitDifference, TwoModels, first_layers
from mu.functional.combined_logits import generic_logits, logit_difference
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm, folder, mixture, people, tokenizer


def learned_positions() -> CausalLM:
    """A tiny GPT-2, to which it matters where a sequence begins; rotary models see distances
    alone.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=57,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CausalLM(network=GPT2LMHeadModel(config), tokenizer=tokenizer())


MAKERS: dict[str, Any] = {"llama": causal_lm, "mixture": mixture, "gpt2": learned_positions}
PROMPTS = [[1, 5, 9], [1, 7], [1, 12, 30, 4, 22, 8], [1], [1, 44, 45, 46, 47]]


def pair(kind: str = "llama") -> tuple[CausalLM, CausalLM]:
    """Two models of one family with other weights."""
    base = MAKERS[kind]()
    other = MAKERS[kind]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for weight in other.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    return base.eval(), other.eval()


def composed(name: str, base: CausalLM, other: CausalLM) -> TwoModels:
    return (
        LogitDifference(base, other, weight=-0.7, top=0.1)
        if name == "difference"
        else GenericLogits(base, other, alpha=2.0)
    )


def wanted(name: str, base: Tensor, other: Tensor) -> Tensor:
    return (
        logit_difference(base, other, -0.7, 0.1)
        if name == "difference"
        else generic_logits(base, other, 2.0)
    )


def batch() -> dict[str, Any]:
    task = people()
    task.setup()
    data: Any = task.datasets["forget"]
    return data.__getitems__([0, 1, 2, 3, 4]) | {"visit": torch.zeros(5, dtype=torch.int64)}


on_both = pytest.mark.parametrize("name", ["difference", "generic"])


@on_both
@pytest.mark.parametrize("kind", MAKERS)
@torch.no_grad()
def test_logits_loss_and_prediction_are_those_of_the_difference(name: str, kind: str) -> None:
    """Fails when a loss, an output or a divergence is that of one of the two."""
    base, other = pair(kind)
    model = composed(name, base, other).eval()
    part = batch()
    logits = wanted(name, base.predict(part), other.predict(part))
    torch.testing.assert_close(model.predict(part), logits)
    assert (model.predict(part) - base.predict(part)).abs().max() > 0.01
    for value, expected in zip(model.loss(part), base.loss(part, logits), strict=True):
        torch.testing.assert_close(value, expected)
    for field in ("nll", "mean_nll"):
        torch.testing.assert_close(
            model.outputs(part, [field])[field], base.outputs(part, [field], logits)[field]
        )
    torch.testing.assert_close(model.scores(part)["loss"], base.scores(part, logits)["loss"])
    torch.testing.assert_close(model.token_nll(part)[0], base.token_nll(part, logits)[0])
    divergence, _ = model.divergence(logits, logits, part)
    torch.testing.assert_close(divergence, torch.zeros(5), atol=1e-5, rtol=0)


@torch.no_grad()
def step_by_step(model: TwoModels, ids: list[int], most: int) -> list[int]:
    """One sequence, without padding and without any cache."""
    generated_ids: list[int] = []
    for _ in range(most):
        tokens = torch.tensor([[*ids, *generated_ids]])
        logits = model.predict({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
        generated_ids.append(int(logits[0, -1].argmax()))
        if generated_ids[-1] == model.tokenizer.eos_token_id:
            break
    return generated_ids


@on_both
@pytest.mark.parametrize("kind", MAKERS)
def test_generation_follows_the_combined_logits(name: str, kind: str) -> None:
    """Fails when padding on the left shifts a model's positions, or one cache holds the other's
    keys.
    """
    model = composed(name, *pair(kind)).eval()
    expected = [model.decode_answer(step_by_step(model, ids, 7)) for ids in PROMPTS]
    assert len(set(expected)) > 1
    for size in (1, 2, 5):
        assert model.generate(PROMPTS, max_new_tokens=7, batch_size=size) == expected


@pytest.mark.parametrize("kind", ["llama", "mixture"])
@pytest.mark.parametrize("stop_strings", [(), ("say",), ("bert", "town", "i i")])
def test_a_difference_of_nothing_generates_as_the_model_alone(
    kind: str, stop_strings: tuple[str, ...]
) -> None:
    """Fails when ends, stop strings or the order of the answers differ from those of a single
    model.
    """
    base, other = pair(kind)
    single = base.generate(PROMPTS, max_new_tokens=9, batch_size=2)
    assert not stop_strings or any(mark in text for text in single for mark in stop_strings)
    for mark in stop_strings:
        single = [text.split(mark)[0] for text in single]
    assert (
        GenericLogits(base, other, alpha=0.0).generate(
            PROMPTS, max_new_tokens=9, stop_strings=stop_strings, batch_size=2
        )
        == single
    )


def test_answer_ends_at_the_end_token() -> None:
    """Fails when tokens after the end become part of the answer, or rows that have ended stop the
    others.
    """
    base, other = pair()
    model = LogitDifference(base, other, weight=-1e-6, top=0.0)
    rows = iter([[9, 8], [2, 8], [7, 2], [7, 6]])

    def says(_: Tensor, __: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(next(rows)), base.vocabulary).float()

    model.combined = says  # type: ignore[method-assign]
    assert model._continue([[1], [1, 5]], 10, [0, 1], Decoding()) == [[9, 2], [8, 8, 2]]


def test_settings_of_generation_come_from_the_base_model() -> None:
    """Fails when hidden states, the vocabulary or the tokenizer are asked for in vain."""
    base, other = pair()
    model = LogitDifference(base, other)
    part = batch()
    assert torch.equal(model.hidden(part, 1), base.hidden(part, 1))
    assert (model.layers, model.vocabulary, model.context, model.dtype) == (
        base.layers,
        base.vocabulary,
        base.context,
        base.dtype,
    )
    assert model.tokenizer is base.tokenizer
    model.check_task(people())
    assert not [
        name for name, _ in model.named_parameters() if not name.startswith(("base.", "other."))
    ]


def test_copy_shares_no_weights() -> None:
    """Fails when an attack on a copy moves the model itself."""
    model = LogitDifference(*pair())
    assert model.tokenizer.eos_token_id == 2
    twin = deepcopy(model)
    before = model.predict(batch())
    with torch.no_grad():
        next(twin.base.parameters()).add_(1.0)
    assert torch.equal(model.predict(batch()), before)
    assert not torch.equal(twin.predict(batch()), before)
    assert twin.tokenizer is model.tokenizer


def test_unsupported_operations_are_refused(tmp_path: Path) -> None:
    base, other = pair()
    with pytest.raises(
        InputError, match=r"LogitDifference answers by two models at once.*mu\.load"
    ):
        export(LogitDifference(base, other), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    with pytest.raises(InputError, match="GenericLogits is made of two trained models"):
        GenericLogits(base, other).fresh(3)
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        LogitDifference(base, other, top=1.5)
    with pytest.raises(InputError, match="below 0"):
        GenericLogits(base, other, alpha=-1.0)
    import transformers

    wide = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=99,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )
    with pytest.raises(InputError, match="57 and 99 tokens"):
        LogitDifference(base, CausalLM(network=wide, tokenizer=tokenizer()))


# ---- the assistant -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
@torch.no_grad()
def test_an_assistant_begins_as_the_first_layers(kind: str) -> None:
    """Fails when another layer is dropped, or the final norm is."""
    model = CausalLM(model=folder(kind, 3), attention="eager").eval()
    before = model.predict(batch())
    short = first_layers(model, 2, LoRA(r=2)).eval()
    network: Any = model.network
    hidden = model.hidden(batch(), 1)
    torch.testing.assert_close(short.predict(batch()), network.lm_head(network.model.norm(hidden)))
    assert (short.layers, model.layers) == (2, 3)
    assert (short.network.config.num_hidden_layers, network.config.num_hidden_layers) == (2, 3)  # type: ignore[union-attr]
    assert torch.equal(model.predict(batch()), before)
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_an_assistant_costs_its_adapters_alone() -> None:
    """Fails when weights are copied, when anything but adapters is trained, or the output matrix
    gets one.
    """
    model = causal_lm()
    short = first_layers(model, 1, LoRA(r=2))
    parameter_ids = {id(p) for p in model.parameters()}
    added = [name for name, p in short.named_parameters() if id(p) not in parameter_ids]
    assert added == [name for name, p in short.named_parameters() if p.requires_grad]
    assert added and all("lora_" in name and "layers.0." in name for name in added)
    assert {name.split(".")[-4] for name in added} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }


def test_an_assistant_of_a_model_with_kinds_of_layers() -> None:
    """Fails when a configuration that lists its layers still lists those that are gone, which
    caches are made from.
    """
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=57,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
    )
    model = CausalLM(network=transformers.Qwen3ForCausalLM(config), tokenizer=tokenizer()).eval()
    short = first_layers(model, 1, LoRA(r=2)).eval()
    assert (len(short.network.config.layer_types), len(model.network.config.layer_types)) == (1, 3)  # type: ignore[arg-type, union-attr]
    served = LogitDifference(model, short, weight=-0.5, top=0.0)
    assert served.generate([[1, 5], [1]], max_new_tokens=4) == [
        served.decode_answer(step_by_step(served, ids, 4)) for ids in ([1, 5], [1])
    ]


def test_invalid_assistants_are_refused() -> None:
    with pytest.raises(InputError, match="3 layers cannot be made from a model of 2"):
        first_layers(causal_lm(), 3, LoRA())
    with pytest.raises(InputError, match="without adapters"):
        first_layers(causal_lm(lora=LoRA()), 1, LoRA())
