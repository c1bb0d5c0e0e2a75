"""Leaves of the metric graph: what is scored and generated with tokenizers of several families."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

from mu.backbones import CausalLM
from mu.data.encoding import Encoder
from mu.data.questions import QuestionSet
from mu.data.sequences import collate
from mu.data.templates import Chat, Llama2, Plain, Template
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.leaves import GeneratedText, Scored
from mu.evaluation.text.membership import MembershipScore
from mu.evaluation.text.metrics import ExactMemorisation, ExtractionStrength, Probability, Rouge
from mu.functional.tokens import IGNORED
from tests.support.trained_tokenizers import (
    CHAT,
    FACTS,
    FAMILIES,
    THINKING_CHAT,
    trained_tokenizer,
)

ROWS = [{"question": question, "answer": answer} for question, answer in FACTS]
TEMPLATES: dict[str, tuple[Template, str | None]] = {
    "plain": (Plain(), None),
    "llama2": (Llama2(), None),
    "ended": (Plain(assistant_end="\n"), None),
    "chat": (Chat(), CHAT),
    "thinking": (Chat(system=None), THINKING_CHAT),
}


@functools.cache
def memorised_graph(family: str, template: str) -> Graph:
    """Graph of a small Llama that has learnt the facts by heart."""
    from transformers import LlamaConfig, LlamaForCausalLM

    form, chat = TEMPLATES[template]
    encoder = Encoder(trained_tokenizer(family, chat), form, 120)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(encoder.tokenizer),
                hidden_size=48,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=160,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
    batch = collate([encoder.pair(question, answer) for question, answer in FACTS])
    batch.pop("key")
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    loss = torch.tensor(torch.inf)
    while loss > 0.01:
        optimizer.zero_grad()
        loss = network(**batch).loss
        loss.backward()
        optimizer.step()
    backbone = CausalLM(network=network.eval(), tokenizer=encoder.tokenizer)
    rows = QuestionSet("forget", ROWS, np.arange(len(ROWS)))
    return Graph(backbone, {"forget": rows}, encoder)


def slow_but(families: tuple[tuple[str, str], ...]) -> list[Any]:
    """All families and templates; those that are not listed are slow."""
    return [
        pytest.param(
            family, template, marks=() if (family, template) in families else pytest.mark.slow
        )
        for family in FAMILIES
        for template in TEMPLATES
    ]


@pytest.mark.parametrize(
    ("family", "template"), slow_but((("gpt2", "plain"), ("llama2", "plain"), ("qwen", "thinking")))
)
def test_a_memorised_answer_is_generated(family: str, template: str) -> None:
    """Mutations: the prompt ends in a lone space; the prompt lacks an empty block of thoughts; an
    end of the turn counts as answer.
    """
    graph = memorised_graph(family, template)
    texts = graph.value(GeneratedText("forget", max_new_tokens=30)).texts
    assert [text.strip() for text in texts] == [answer for _, answer in FACTS]
    assert graph.value(Rouge("forget", max_new_tokens=30, measure="f1")).value == 1
    assert graph.value(ExactMemorisation("forget")).value == 1
    assert graph.value(ExtractionStrength("forget")).value == 1
    assert graph.value(Probability("forget")).value > 0.9


@pytest.mark.parametrize("template", ["chat", "thinking", "ended"])
def test_scores_are_those_of_the_answer_alone(template: str) -> None:
    """The token mean by hand, with the end of the sequence only where it follows directly."""
    graph = memorised_graph("gpt2", template)
    tokenizer = graph.encoder.tokenizer
    scores = graph.value(Scored("forget"))
    (log_prob,), mask = scores.padded("log_prob")
    for row, (question, answer) in enumerate(FACTS):
        before, after = graph.encoder.template.around(tokenizer, question)
        special = graph.encoder.template.special
        ids = tokenizer(before + answer + after, add_special_tokens=special)["input_ids"]
        offsets = tokenizer(
            before + answer + after, add_special_tokens=special, return_offsets_mapping=True
        )["offset_mapping"]
        positions = [
            position
            for position, (start, end) in enumerate(offsets)
            if end > len(before) and start < len(before + answer)
        ]
        with torch.no_grad():
            log_p = graph.backbone.network(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = torch.stack([log_p[position - 1, ids[position]] for position in positions])
        torch.testing.assert_close(log_prob[row][mask[row]], expected, rtol=1e-4, atol=1e-5)
        assert bool(scores.ended[row]) == (template != "ended")


def test_gradient_norms_are_of_the_answer_without_the_end() -> None:
    """Mutation: the end of the sequence is in the loss."""
    graph = memorised_graph("gpt2", "plain")
    network: Any = graph.backbone.network
    measured = graph.value(MembershipScore("gradient_norm", "forget")).items
    for score, (question, answer) in zip(measured, FACTS, strict=True):
        ids, labels = graph.encoder.pair(question, answer)
        assert ids[-1] == graph.encoder.eos
        answer_labels = torch.tensor([[*labels[:-1], IGNORED]])
        network.zero_grad()
        network(input_ids=torch.tensor([ids]), labels=answer_labels).loss.backward()
        norms = torch.stack([weight.grad.norm() for weight in network.parameters()])
        assert score.item() == pytest.approx(norms.mean().item(), rel=1e-3)
    network.zero_grad()


def test_a_jailbreak_begins_where_training_does() -> None:
    """The forced words belong to the prompt, and the answer's first token is that of its pair."""
    graph = memorised_graph("gpt2", "plain")
    encoder = graph.encoder
    question, answer = FACTS[0]
    prompt = encoder.prompt(question, begin="Sure, here is it:", answer=answer)
    ids, labels = encoder.scored_pair(question, answer, begin="Sure, here is it:")
    assert ids[: len(prompt)] == prompt
    assert labels[len(prompt) :] == ids[len(prompt) :]
    assert encoder.decode(ids[len(prompt) :]) == f" {answer}"
    assert encoder.decode(prompt).endswith("Sure, here is it:")
