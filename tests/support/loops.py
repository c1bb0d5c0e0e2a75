"""Drawn tensors, and softmax and divergences in Python floats, for tests of losses."""

from __future__ import annotations

import math

import torch
from hypothesis import settings
from torch import Tensor

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)
"""Settings of property tests."""


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal draws in double precision."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def draw(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    """Normal draws of standard deviation 3 in double precision: logits."""
    return normal(*shape, seed=seed, scale=scale)


def labels(b: int, k: int, seed: int = 1) -> Tensor:
    """Uniform class labels."""
    return torch.randint(k, (b,), generator=torch.Generator().manual_seed(seed))


def flags(b: int, seed: int = 2) -> Tensor:
    """Random booleans, 40 % true."""
    return torch.rand(b, generator=torch.Generator().manual_seed(seed)) < 0.4


def softmax(row: list[float]) -> list[float]:
    """Probabilities in Python floats."""
    top = max(row)
    powers = [math.exp(z - top) for z in row]
    return [p / sum(powers) for p in powers]


def log_softmax(row: list[float]) -> list[float]:
    """Log-probabilities in Python floats."""
    top = max(row)
    total = math.log(sum(math.exp(z - top) for z in row)) + top
    return [z - total for z in row]


def kl(q: list[float], log_p: list[float]) -> float:
    """Kullback-Leibler divergence of q from p, given log p."""
    return sum(a * (math.log(a) - b) for a, b in zip(q, log_p, strict=True) if a > 0)


def scaled(row: list[float], temperature: float) -> list[float]:
    """Logits divided by a temperature."""
    return [z / temperature for z in row]


def same(got: Tensor, want: list[float], tolerance: float = 1e-11) -> None:
    """Assert that a loss has one value per example, and these."""
    assert got.shape == (len(want),), "one value per example"
    torch.testing.assert_close(
        got.double(), torch.tensor(want, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


def wants_grad(x: Tensor) -> Tensor:
    """A leaf that requires a gradient."""
    return x.clone().requires_grad_()
