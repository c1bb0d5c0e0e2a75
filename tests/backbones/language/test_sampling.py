"""Sampling of next tokens: temperature, top-k and top-p as transformers have them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mu.backbones.language.sampling import NextToken, Sampling
from mu.utils.errors import InputError


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 2}, {1, 3}),
        ({"top_k": 1, "top_p": 0.5}, {3}),
        ({"top_p": 0.6}, {3}),
        ({"top_p": 0.7}, {1, 3}),
        ({"top_p": 0.8, "temperature": 2.0}, {1, 3, 2}),
    ],
)
def test_tokens_are_drawn_from_the_likeliest(settings: dict[str, Any], allowed: set[int]) -> None:
    """Mutations: noise before the cut; the temperature after it; top-p leaves out the token that
    reaches p.
    """
    logits = torch.tensor([0.03, 0.25, 0.10, 0.62]).log().expand(2000, -1)
    tokens = Sampling(**settings).add_gumbel_noise(logits, range(2000), 0).argmax(-1)
    assert set(tokens.tolist()) == allowed
    scores = Sampling(**settings).scaled(logits[:1])[0]
    shares = tokens.bincount(minlength=4) / len(tokens)
    assert (shares - scores.softmax(0)).abs().max() < 0.05


def test_a_repetition_penalty_passes_over_padding() -> None:
    """Fails when the end token, which pads, is penalised in the shorter prompts of a batch."""
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    ids = torch.tensor([[2, 2, 5, 7], [2, 6, 5, 7]])
    scores = NextToken(mask, [0, 1], repetition_penalty=2.0)(ids, torch.ones(2, 9))
    penalised = [set((row == 0.5).nonzero().flatten().tolist()) for row in scores]
    assert penalised == [{5, 7}, {2, 5, 6, 7}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, r"top_p is 0.0; it is a probability in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**settings)
