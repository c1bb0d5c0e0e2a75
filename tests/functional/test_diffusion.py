"""Targets, weights and closed forms of diffusion unlearning against the published equations, stated
again in Python floats and loops.
"""

from __future__ import annotations

import doctest
import importlib
import math

import pytest
import torch
from torch import Tensor

import mu.functional as md
from mu.utils.errors import InputError

SHAPES = [(1, 1, 1, 1), (3, 2, 5, 4), (2, 4, 3, 7)]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(found: Tensor, wanted: list[float]) -> None:
    torch.testing.assert_close(
        found.flatten(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


def test_worked_examples_of_the_docstrings():
    result = doctest.testmod(importlib.import_module("mu.functional.diffusion"))
    assert result.attempted and result.failed == 0


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eta", [0.0, 1.0, 2.5, -0.3])
def test_esd_targets(shape, eta):
    c = draw(*shape)
    n = draw(*shape, seed=1)
    k = draw(*shape, seed=2)
    flat = list(zip(c.flatten().tolist(), n.flatten().tolist(), k.flatten().tolist(), strict=True))
    same(md.esd_target(c, n, eta), [b - eta * (a - b) for a, b, _ in flat])
    same(md.esd_from_target(k, c, n, eta), [f - eta * (a - b) for a, b, f in flat])


@pytest.mark.parametrize("shape", SHAPES)
def test_esd_with_eta_minus_one_is_the_model_itself(shape):
    c = draw(*shape)
    n = draw(*shape, seed=1)
    torch.testing.assert_close(md.esd_target(c, n, -1.0), c)
    assert torch.equal(md.esd_target(c, n, 0.0), n)


@pytest.mark.parametrize("eta", [0.5, 2.0])
def test_the_rewrite_is_the_classic_with_eta_one_less(eta):
    c = draw(3, 2, 5)
    n = draw(3, 2, 5, seed=1)
    torch.testing.assert_close(md.esd_from_target(c, c, n, eta), md.esd_target(c, n, eta - 1))


@pytest.mark.parametrize("eta", [1.0, 2.5])
def test_targets_hold_in_every_parametrisation(eta):
    """v is an affine function of ε at a given x_t, and the coefficients of a target add up to 1."""
    c, n, k, x = (draw(2, 3, 4, 4, seed=seed) for seed in range(4))

    def v(epsilon: Tensor) -> Tensor:
        return 1.3 * epsilon - 0.7 * x

    torch.testing.assert_close(md.esd_target(v(c), v(n), eta), v(md.esd_target(c, n, eta)))
    torch.testing.assert_close(
        md.esd_from_target(v(k), v(c), v(n), eta), v(md.esd_from_target(k, c, n, eta))
    )


def test_shapes_are_checked():
    with pytest.raises(InputError, match="one shape"):
        md.esd_target(torch.zeros(2, 3), torch.zeros(3), 1.0)
    with pytest.raises(InputError, match="one shape"):
        md.bome_weight(torch.zeros(3), torch.zeros(1), 1.0)


# ---------------------------------------------------------------- weights of two objectives


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("eta", [0.1, 3.0])
def test_weights_of_a_constraint(seed, eta):
    g = draw(13, seed=seed)
    q = draw(13, seed=seed + 50)
    pairs = list(zip(g.tolist(), q.tolist(), strict=True))
    dot = sum(a * b for a, b in pairs)
    square = sum(b * b for _, b in pairs)
    length = math.sqrt(sum(a * a for a, _ in pairs))
    same(md.bome_weight(g, q, eta), [max(0.0, eta - dot / square)])
    same(md.cosine_weight(g, q, eta), [max(0.0, eta - dot / (length * math.sqrt(square) + 1e-8))])


@pytest.mark.parametrize("seed", range(5))
def test_bome_lowers_the_constraint(seed):
    """⟨g + λ q, q⟩ >= η ‖q‖², with equality where λ is not 0."""
    g = draw(9, seed=seed)
    q = draw(9, seed=seed + 9)
    eta = 0.4
    weight = md.bome_weight(g, q, eta)
    rate = ((g + weight * q) * q).sum() / q.square().sum()
    assert rate >= eta - 1e-12
    assert weight == 0 or rate == pytest.approx(eta)


@pytest.mark.parametrize("law", [md.bome_weight, md.cosine_weight])
def test_a_constraint_without_gradient_weighs_nothing(law):
    assert law(draw(4), torch.zeros(4, dtype=torch.float64), 0.1) == 0


def test_quadratic_penalty():
    shapes = [(2, 3), (5,), (1, 1, 4)]
    w, a, f = ([draw(*shape, seed=seed) for shape in shapes] for seed in (0, 1, 2))
    wanted = 0.0
    for weight, anchor, importance in zip(w, a, f, strict=True):
        rows = zip(
            weight.flatten().tolist(),
            anchor.flatten().tolist(),
            importance.flatten().tolist(),
            strict=True,
        )
        wanted += sum(i * (x - y) ** 2 for x, y, i in rows)
    same(md.quadratic_penalty(w, a, f), [wanted])
    assert md.quadratic_penalty(w, w, f) == 0


# ---------------------------------------------------------------- cross-attention edits


def published(
    weight: Tensor, keys: Tensor, guides: Tensor, kept: Tensor, lam: float, a: float, b: float
) -> Tensor:
    """Equation 7 of UCE, one pair at a time, with an explicit inverse."""
    left = lam * weight
    right = lam * torch.eye(weight.shape[1], dtype=torch.float64)
    for c, g in zip(keys, guides, strict=True):
        left = left + a * torch.outer(weight @ g, c)
        right = right + a * torch.outer(c, c)
    for p in kept:
        left = left + b * torch.outer(weight @ p, p)
        right = right + b * torch.outer(p, p)
    return left @ torch.linalg.inv(right)


@pytest.mark.parametrize(
    ("outputs", "width", "pairs", "kept"), [(3, 5, 1, 0), (7, 4, 3, 2), (2, 6, 9, 20), (5, 3, 0, 4)]
)
@pytest.mark.parametrize(("lam", "a", "b"), [(0.5, 1.0, 1.0), (0.1, 2.0, 0.3)])
def test_uce(outputs, width, pairs, kept, lam, a, b):
    w = draw(outputs, width)
    c = draw(pairs, width, seed=1)
    g = draw(pairs, width, seed=2)
    p = draw(kept, width, seed=3)
    gram, change = md.uce_sums(c, g, p, lam, a, b)
    torch.testing.assert_close(
        md.uce_update(w, gram, change), published(w, c, g, p, lam, a, b), rtol=1e-10, atol=1e-10
    )


def test_uce_minimises_its_objective():
    """The gradient of the published objective vanishes at the edited weights."""
    w = draw(4, 6)
    c = draw(3, 6, seed=1)
    g = draw(3, 6, seed=2)
    p = draw(5, 6, seed=3)
    edited = md.uce_update(w, *md.uce_sums(c, g, p, 0.5, 1.5, 0.7)).requires_grad_()
    value = 1.5 * sum((edited @ x - w @ y).square().sum() for x, y in zip(c, g, strict=True))
    value = (
        value
        + 0.7 * sum((edited @ x - w @ x).square().sum() for x in p)
        + 0.5 * (edited - w).square().sum()
    )
    (slope,) = torch.autograd.grad(value, edited)
    assert slope.abs().max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_an_edit_of_nothing_leaves_the_weights_bit_for_bit(dtype):
    w = draw(6, 8).to(dtype)
    c = draw(3, 8, seed=1)
    nothing = torch.zeros(0, 8)
    for keys, guides in ((nothing, nothing), (c, c)):
        edited = md.uce_update(w, *md.uce_sums(keys, guides, draw(5, 8, seed=2), 0.5, 1.0, 1.0))
        assert edited.dtype == dtype and torch.equal(edited, w)


def test_a_light_pull_maps_keys_to_guides_and_keeps_the_preserved():
    w = draw(4, 12)
    c = draw(2, 12, seed=1)
    g = draw(2, 12, seed=2)
    p = draw(3, 12, seed=3)
    edited = md.uce_update(w, *md.uce_sums(c, g, p, 1e-9, 1.0, 1.0))
    torch.testing.assert_close(edited @ c.T, w @ g.T, atol=1e-6, rtol=0)
    torch.testing.assert_close(edited @ p.T, w @ p.T, atol=1e-6, rtol=0)


def test_a_layer_of_another_width_is_refused():
    with pytest.raises(InputError, match="width 5"):
        md.uce_update(draw(3, 5), torch.eye(4, dtype=torch.float64), draw(4, 4))
