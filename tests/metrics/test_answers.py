"""Perplexity weighs tokens alike, and exact match follows SQuAD's normalisation."""

from __future__ import annotations

import math

import pytest
import torch

from mu.metrics.answers import exact_match, perplexity
from mu.utils.errors import InputError, UndefinedError


def test_perplexity_weighs_every_token_alike() -> None:
    """exp of the mean over all tokens: 10 tokens at 1 nat and 2 at 4 nats."""
    nll = torch.tensor([1.0, 4.0])
    assert perplexity(nll, torch.tensor([10, 2])) == pytest.approx(math.exp((10 + 8) / 12))


def test_perplexity_of_certain_answers_is_one() -> None:
    assert perplexity(torch.zeros(3), torch.tensor([1, 2, 3])) == 1.0


@pytest.mark.parametrize("losses", [[math.inf], [math.nan], [1e4]])
def test_perplexity_that_is_not_finite_is_undefined(losses: list[float]) -> None:
    with pytest.raises(UndefinedError, match="not finite"):
        perplexity(torch.tensor(losses), torch.ones(len(losses)))


def test_perplexity_of_no_answer_is_undefined() -> None:
    with pytest.raises(UndefinedError, match="no answer"):
        perplexity(torch.tensor([]), torch.tensor([]))


@pytest.mark.parametrize(
    ("output", "truth", "match"),
    [
        ("the town of Oslo", "In Oslo.", 0.0),
        ("in  oslo", "In Oslo.", 1.0),
        ("An Oslo", "Oslo", 1.0),
        ("Theodor", "odor", 0.0),
        ("«Zürich»", "zürich", 1.0),
        ("東京。", "東京", 1.0),
        ("", "Oslo", 0.0),
        ("?", "!", 0.0),
        ("the", "a", 0.0),
    ],
)
def test_exact_match_leaves_out_case_punctuation_articles_and_white_space(
    output: str, truth: str, match: float
) -> None:
    assert exact_match([output], [truth]).tolist() == [match]


def test_an_empty_truth_has_no_exact_match() -> None:
    assert exact_match(["x"], [" "]).isnan().all()


def test_outputs_and_truths_of_different_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="not 1 with 2"):
        exact_match(["x"], ["x", "y"])
