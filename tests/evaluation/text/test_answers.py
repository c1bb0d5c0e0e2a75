"""Perplexity and exact match of a set, against sums one row at a time."""

from __future__ import annotations

import math

import pytest

from mu.evaluation.text.answers import ExactMatch, Perplexity
from mu.evaluation.text.leaves import GeneratedText
from mu.metrics.answers import exact_match
from tests.support.doubles_text import causal_lm
from tests.support.text_metrics import SHORT, by_hand, make_graph


def test_perplexity_of_a_set_is_that_of_its_tokens_by_hand() -> None:
    lm = causal_lm()
    graph = make_graph(lm)
    questions = graph.questions("forget")
    scores = [
        score
        for row in questions.rows
        for score in by_hand(lm, str(row["question"]), str(row["answer"]))
    ]
    expected = math.exp(-sum(log_prob for log_prob, *_ in scores) / len(scores))
    measured = graph.value(Perplexity("forget"))
    assert measured.value == pytest.approx(expected, rel=1e-5)
    assert measured.detail == {"tokens": len(scores)}


def test_exact_match_of_a_set_is_that_of_its_generated_answers() -> None:
    graph = make_graph()
    texts = graph.value(GeneratedText("forget", max_new_tokens=SHORT)).texts
    expected = exact_match(texts, graph.column("forget", "answer"))
    measured = graph.value(ExactMatch("forget", max_new_tokens=SHORT))
    assert measured.items is not None
    assert measured.items.tolist() == expected.tolist()
    assert measured.value == pytest.approx(float(expected.mean()))
