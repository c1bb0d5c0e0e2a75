"""Simplex of adversarial tokens: projection, sampling, gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mu.attacks import TokenSimplex
from mu.attacks.token_variables import Key, simplex_projection, vocabulary
from mu.backbones import TextToImage
from tests.support.doubles import text_to_image


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return text_to_image(part="text_encoder")


def exact_projection(row: np.ndarray) -> np.ndarray:
    """Held, Wolfe and Crowder's sorting algorithm, in float64."""
    ordered = np.sort(row.astype(np.float64))[::-1]
    sums = np.cumsum(ordered) - 1
    last = max(k for k in range(len(row)) if ordered[k] - sums[k] / (k + 1) > 0)
    return np.maximum(row - sums[last] / (last + 1), 0)


@pytest.mark.parametrize("size", [2, 100, 3000])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_the_projection_is_that_of_sorting(size: int, scale: float) -> None:
    """Fails when bisection stops too early, or its last step is wrong."""
    values = torch.randn(4, 3, size, generator=torch.Generator().manual_seed(size)) * scale
    projected = simplex_projection(values)
    for row, original in zip(projected.view(-1, size), values.view(-1, size), strict=True):
        assert np.abs(row.numpy() - exact_projection(original.numpy())).max() < 1e-5
    assert (projected.sum(-1) - 1).abs().max() < 1e-5
    assert projected.min() >= 0 and projected.max() <= 1
    assert torch.allclose(simplex_projection(projected), projected, atol=1e-6)


def test_the_projection_at_the_corners() -> None:
    """Fails when a corner, the centre, or an entry that may not be is moved wrongly."""
    centre = torch.full((7,), 1 / 7)
    corner = torch.eye(7)[2]
    assert torch.allclose(simplex_projection(centre), centre)
    assert torch.equal(simplex_projection(corner), corner)
    assert torch.equal(simplex_projection(corner * 9), corner)
    barred = torch.tensor([5.0, 0.3, -torch.inf, 0.3])
    assert torch.equal(simplex_projection(barred), torch.tensor([1.0, 0, 0, 0]))
    assert torch.allclose(simplex_projection(torch.zeros(50_000)).sum(), torch.ones(()), atol=1e-5)


def keys(*index: int, visit: int = 0, seed: int = 0) -> Key:
    return Key(seed, torch.tensor(index), torch.full((len(index),), visit))


def test_tokens_are_sampled_from_their_distributions(model: TextToImage) -> None:
    """Fails when a token is drawn that has no share, in other proportions, or the same in every
    step.
    """
    variables = TokenSimplex()
    values = torch.zeros(1, 2, 100)
    values[0, 0, [3, 50]] = torch.tensor([0.25, 0.75])
    values[0, 1, 99] = 1.0
    table = model.embed(torch.arange(100)).detach()
    counts = torch.zeros(2, 100)
    for step in range(400):
        drawn = variables.embeddings(model, values, keys(5), step)
        for slot in range(2):
            counts[slot, (table == drawn[0, slot]).all(1)] += 1
    assert counts[1, 99] == 400
    assert counts[0, 3] + counts[0, 50] == 400
    assert 70 < counts[0, 3] < 130


def test_the_gradient_passes_straight_through_and_is_clamped(model: TextToImage) -> None:
    """Fails when the gradient is that of another token only, is not clamped to [-1, 1], or counts
    the sampling.
    """
    values = simplex_projection(torch.rand(2, 3, 100)).requires_grad_(True)
    weight = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(1)) * 20
    drawn = TokenSimplex().embeddings(model, values, keys(1, 2), 0)
    (gradient,) = torch.autograd.grad((drawn * weight).sum(), values)
    table = model.embed(torch.arange(100)).detach().double()
    for b in range(2):
        for k in range(3):
            for token in range(100):
                target = max(-1.0, min(1.0, float((weight[b, k].double() * table[token]).sum())))
                assert gradient[b, k, token].item() == pytest.approx(target, abs=1e-5)
    assert 0 < (gradient.abs() == 1).float().mean() < 1


@pytest.mark.parametrize("init", ["uniform", "random"])
def test_the_simplex_begins_on_words_alone(model: TextToImage, init: Any) -> None:
    """Fails when start and end token are searched, or a row does not sum to 1."""
    values = TokenSimplex(init).begin(model, 2, keys(0, 1), None)
    assert vocabulary(model).nonzero().flatten().tolist() == list(range(98))
    assert torch.equal(values[..., 98:], torch.zeros(2, 2, 2))
    assert torch.allclose(values.sum(-1), torch.ones(2, 2))
    assert values[..., :98].min() > 0
    assert values[..., :98].std() == 0 or init == "random"
    assert torch.equal(TokenSimplex(init).begin(model, 2, keys(1), None)[0], values[1])
    moved = TokenSimplex().project(
        values + torch.rand(2, 2, 100) * (torch.arange(100) > 90), vocabulary(model)
    )
    assert torch.equal(moved[..., 98:], torch.zeros(2, 2, 2))
