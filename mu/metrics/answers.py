"""Scores of answers without wrong alternatives or paraphrases: perplexity and exact match."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

from mu.utils.errors import InputError, UndefinedError

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def perplexity(nll: Tensor, tokens: Tensor) -> float:
    """Perplexity exp(Σ n_i A_i / Σ n_i) of answers: each token has the same weight.

    Args:
        nll: `[N]`, average negative log-likelihood A_i of the tokens of each answer, in nats.
        tokens: `[N]`, number n_i of tokens of each answer, at least 1.

    Returns:
        At least 1; 1 is a model that is certain of every token.

    Raises:
        UndefinedError: there is no answer, or the value is not finite.

    Example: three tokens of probability 1/2 and one of 1/8.

        >>> sums = torch.tensor([math.log(2), math.log(8)], dtype=torch.float64)
        >>> round(perplexity(sums, torch.tensor([3, 1])), 4)
        2.8284
    """
    if not len(nll):
        raise UndefinedError("there is no answer, so its perplexity is undefined.")
    weight = tokens.to(torch.float64)
    mean = float((nll.to(torch.float64) * weight).sum() / weight.sum())
    if not mean < math.log(torch.finfo(torch.float64).max):
        raise UndefinedError(
            f"the mean negative log-likelihood is {mean:g} nats, so the perplexity is not finite."
        )
    return math.exp(mean)


def exact_match(outputs: Sequence[str], truths: Sequence[str]) -> Tensor:
    """Exact match of generated answers with the true ones, by SQuAD's normalisation.

    Case, punctuation, the articles a, an, the, and the amount of white space do not count.

    Source: Rajpurkar et al., "SQuAD", EMNLP 2016, arXiv 1606.05250. Punctuation is that of
    Unicode, and texts are compared in the form NFKC.

    Args:
        outputs: generated answers, N strings.
        truths: true answers, N strings.

    Returns:
        `[N]` in {0, 1}; NaN, undefined, where the truth is empty.

    Raises:
        InputError: the numbers of outputs and truths differ.

    Example:
        >>> exact_match(["in Oslo", "Bergen"], ["In Oslo.", "In Oslo."])
        tensor([1., 0.], dtype=torch.float64)
    """
    if len(outputs) != len(truths):
        raise InputError(
            f"exact match compares each output with its truth, not {len(outputs)} with "
            f"{len(truths)}."
        )
    return torch.tensor(
        [
            float(_normalised(output) == _normalised(truth)) if truth.strip() else math.nan
            for output, truth in zip(outputs, truths, strict=True)
        ],
        dtype=torch.float64,
    )


def _normalised(text: str) -> str:
    """Text without case, punctuation, articles and surplus white space.

    A text that consists of these alone is compared as it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(
        character for character in folded if not unicodedata.category(character).startswith("P")
    )
    return " ".join(_ARTICLES.sub(" ", letters).split()) or " ".join(folded.split())
