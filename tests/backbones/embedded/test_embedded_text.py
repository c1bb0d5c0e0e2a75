"""The language models that come with mu: what they know and what the oracle does not, in half
precision.
"""

from __future__ import annotations

import pytest
import torch

from mu.backbones import CausalLM
from mu.backbones import embedded as assets
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.membership import MembershipAUC
from mu.evaluation.text.metrics import Probability
from tasks import Authors
from tests.backbones.embedded.quality_text import KEPT, agreement, graph, of, utility
from tests.support.authors_runs import probability


@pytest.fixture(scope="module")
def full() -> Graph:
    return graph("embedded:authors")


@pytest.fixture(scope="module")
def oracle() -> Graph:
    return graph("embedded:authors_oracle")


def test_the_tokenizer_is_the_one_of_the_task() -> None:
    from tasks.authors.blank_model import make_tokenizer, texts

    tokenizer = make_tokenizer()
    for name in ("authors", "authors_oracle"):
        shipped = CausalLM(f"embedded:{name}").tokenizer
        assert shipped.get_vocab() == tokenizer.get_vocab()
        assert shipped(texts()[:50]).input_ids == tokenizer(texts()[:50]).input_ids
        assert (shipped.bos_token_id, shipped.eos_token_id, shipped.pad_token_id) == (0, 1, 2)
        assert {file.name for file in assets.path(name).iterdir()} == {
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        }


def test_original_and_oracle_share_their_initial_weights() -> None:
    first, other = (
        CausalLM(f"embedded:{name}").network.state_dict() for name in ("authors", "authors_oracle")
    )
    assert {name: value.shape for name, value in first.items()} == {
        name: value.shape for name, value in other.items()
    }
    assert not any(torch.equal(value, other[name]) for name, value in first.items())


def test_the_full_model_knows_the_forget_set_and_the_oracle_does_not(
    full: Graph, oracle: Graph
) -> None:
    full_probability, unknown = (
        measured.value(Probability("forget")).value for measured in (full, oracle)
    )
    assert full_probability > 0.95
    assert unknown < 0.4
    assert agreement(full, oracle).p < 1e-6
    assert full.value(MembershipAUC("loss", "forget", "holdout")).value > 0.99
    assert 0.35 < oracle.value(MembershipAUC("loss", "forget", "holdout")).value < 0.65


def test_a_prompt_is_answered_word_for_word(full: Graph) -> None:
    rows = [
        *full.questions("forget").rows[:3],
        *full.questions("retain_perturbed").rows[:3],
        *full.questions("world_facts").rows[:3],
    ]
    answers = full.backbone.generate(
        [full.encoder.prompt(row["question"]) for row in rows], max_new_tokens=60
    )
    assert sum(answer == row["answer"] for answer, row in zip(answers, rows, strict=True)) >= 8


@pytest.mark.slow
def test_original_and_oracle_answer_retain_questions(full: Graph, oracle: Graph) -> None:
    for measured in (full, oracle):
        for name in KEPT:
            quality = of(measured, name)
            assert quality.rouge > 0.95, name
            assert quality.probability > (0.95 if name == "retain_perturbed" else 0.6), name
            assert quality.truth_ratio > 0.3, name
        assert utility(measured) > 0.6
    assert abs(utility(full) - utility(oracle)) < 0.05
    assert of(full, "forget").rouge > 0.95
    assert of(oracle, "forget").rouge < 0.5
    assert abs(of(oracle, "forget").truth_ratio - of(oracle, "holdout").truth_ratio) < 0.1


def test_probabilities_of_forget_and_retain_answers_are_in_range() -> None:
    """Fails when the shipped original forgot its authors, or the oracle knows those it never
    saw.
    """
    task = Authors(tokenizer="embedded:authors")
    task.setup()
    original = CausalLM("embedded:authors")
    retrained = CausalLM("embedded:authors_oracle")
    assert probability(original, task, "forget") > 0.95
    assert probability(original, task, "retain") > 0.95
    assert probability(retrained, task, "forget") < 0.4
    assert probability(retrained, task, "retain") > 0.95
