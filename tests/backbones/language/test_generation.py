"""Generation of answers: end tokens of the generation config, and the end of the context."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mu.backbones.language.causal_lm import CausalLM
from mu.backbones.language.generation import (
    new_token_limits,
    prompt_batches,
    without_thoughts,
)
from mu.backbones.language.sampling import Sampling
from mu.backbones.language.two_models import GenericLogits
from mu.utils.errors import InputError
from tests.support.doubles_text import causal_lm

PROMPTS = [[1, 5], [1, 6, 9, 12], [1, 7, 20], [1, 30, 8, 4, 11, 6]]


def gpt2(context: int) -> CausalLM:
    """Tiny GPT-2, whose learnt positions end with the context."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=64,
        n_positions=context,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = GPT2LMHeadModel(config)
    with torch.no_grad():
        network.lm_head.weight[2] = -10  # it never ends by itself
    return CausalLM(network=network.eval(), tokenizer=causal_lm().tokenizer)


def test_answers_end_at_every_end_token_of_the_generation_config() -> None:
    """As in transformers' own `generate`. Mutation: the tokenizer's end token alone counts."""
    backbone = causal_lm().eval()
    full_answers = [backbone.generate([ids], 8)[0].split() for ids in PROMPTS]
    word = full_answers[0][2]
    turn = backbone.tokenizer.convert_tokens_to_ids(word)
    backbone.network.generation_config.eos_token_id = [2, turn]  # type: ignore[union-attr]
    assert backbone.end_tokens == [2, turn]
    expected = [
        " ".join(words[: words.index(word)] if word in words else words) for words in full_answers
    ]
    assert backbone.generate(PROMPTS, 8) == expected
    assert expected[0] == " ".join(full_answers[0][:2])
    both = GenericLogits(backbone, causal_lm().eval(), alpha=0.0)
    assert both.end_tokens == [2, turn]
    assert both.generate(PROMPTS, 8) == expected


@pytest.mark.parametrize("composed", [False, True], ids=["one model", "two models"])
def test_an_answer_ends_where_the_context_does(composed: bool) -> None:
    """Mutations: positions beyond the context are read (IndexError); the longest prompt of a batch
    decides for all.
    """
    backbone = gpt2(9)
    model = GenericLogits(backbone, gpt2(12), alpha=0.0) if composed else backbone
    texts = model.generate(PROMPTS, 50)
    assert [len(text.split()) for text in texts] == [9 - len(ids) for ids in PROMPTS]
    assert texts == [model.generate([ids], 50)[0] for ids in PROMPTS]
    with pytest.raises(InputError, match=r"a prompt has 9 tokens and the context of the model 9"):
        model.generate([[1] * 9], 1)


def test_prompts_of_one_batch_have_one_limit() -> None:
    limits = new_token_limits([3, 7, 2, 6], max_new_tokens=4, context=10)
    assert limits == [4, 3, 4, 4]
    assert list(prompt_batches([3, 7, 2, 6], limits, 2)) == [([2, 0], 4), ([3], 4), ([1], 3)]
    assert new_token_limits([], 4, 10) == []


def test_thoughts_are_no_part_of_an_answer() -> None:
    """Mutations: an unfinished or a later block is cut out; thoughts count as answer."""
    assert without_thoughts("<think>\n\n</think>\n\nOslo") == "Oslo"
    assert without_thoughts(" <think>Ada?\nOslo?</think> in Lima") == "in Lima"
    for text in ("Oslo", "<think>Oslo", "Oslo <think>so</think>"):
        assert without_thoughts(text) == text


def reference_texts(backbone: CausalLM, **settings: Any) -> list[str]:
    """Answers of transformers' own `generate`, one prompt at a time, without padding."""
    network: Any = backbone.network
    texts = []
    for ids in PROMPTS:
        row = network.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            pad_token_id=2,
            eos_token_id=2,
            do_sample=False,
            max_new_tokens=8,
            **settings,
        )[0, len(ids) :]
        texts.append(backbone.decode_answer(row.tolist()))
    return texts


@pytest.mark.parametrize("composed", [False, True], ids=["one model", "two models"])
@pytest.mark.parametrize("source", ["argument", "generation config"])
def test_a_repetition_penalty_is_that_of_transformers(source: str, composed: bool) -> None:
    """Mutations: padding is penalised as the end token; the config's penalty counts twice or not
    at all; two models ignore it.
    """
    backbone = causal_lm().eval()
    network: Any = backbone.network
    greedy = backbone.generate(PROMPTS, 8)
    expected = reference_texts(backbone, repetition_penalty=3.0)
    assert expected != greedy
    settings = {"repetition_penalty": 3.0} if source == "argument" else {}
    if not settings:
        network.generation_config.repetition_penalty = 3.0
    model = GenericLogits(backbone, causal_lm().eval(), alpha=0.0) if composed else backbone
    assert model.generate(PROMPTS, 8, **settings) == expected
    assert model.generate(PROMPTS, 8, repetition_penalty=1.0) == greedy


def test_a_beam_search_is_that_of_transformers() -> None:
    """Mutations: beams are not passed on; a penalty knows one beam of each prompt only."""
    backbone = causal_lm().eval()
    assert backbone.generate(PROMPTS, 8, num_beams=3) == reference_texts(backbone, num_beams=3)
    penalised = backbone.generate(PROMPTS, 8, num_beams=3, repetition_penalty=2.0)
    assert penalised == reference_texts(backbone, num_beams=3, repetition_penalty=2.0)
    assert penalised != backbone.generate(PROMPTS, 8, num_beams=3)


@pytest.mark.parametrize(
    ("composed", "settings", "message"),
    [
        (False, {"num_beams": 2, "sampling": Sampling()}, "samples nothing; set num_beams to 1"),
        (False, {"num_beams": 0}, "num_beams is 0"),
        (False, {"repetition_penalty": 0.0}, "repetition_penalty is 0"),
        (True, {"num_beams": 2}, "GenericLogits answers token by token"),
    ],
)
def test_a_decoding_that_cannot_be_done_is_refused(
    composed: bool, settings: dict[str, Any], message: str
) -> None:
    backbone = causal_lm().eval()
    model = GenericLogits(backbone, backbone, alpha=0.0) if composed else backbone
    with pytest.raises(InputError, match=message):
        model.generate(PROMPTS, 2, **settings)
