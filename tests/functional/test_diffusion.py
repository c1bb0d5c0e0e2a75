"""Targets, score distillation and closed forms of diffusion unlearning against the published
equations, in float64 loops.

Zhou et al., ICML 2024, arXiv 2404.04057, equation of the SiD loss with α; Chen et al., ICLR 2025,
arXiv 2409.11219, `DDPM/functions/losses.py` of the released code.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import mu.functional as mf
from mu.functional.diffusion import fake_score_loss, sid_loss
from mu.utils.errors import InputError
from tests.support.loops import normal

SHAPES = [(1, 1, 1, 1), (3, 2, 5, 4), (2, 4, 3, 7)]


def same(values: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(
        values.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eta", [0.0, 1.0, 2.5, -0.3])
def test_esd_targets(shape, eta):
    c = normal(*shape)
    n = normal(*shape, seed=1)
    k = normal(*shape, seed=2)
    flat = list(zip(c.flatten().tolist(), n.flatten().tolist(), k.flatten().tolist(), strict=True))
    same(mf.esd_target(c, n, eta), [b - eta * (a - b) for a, b, _ in flat])
    same(mf.esd_from_target(k, c, n, eta), [f - eta * (a - b) for a, b, f in flat])


@pytest.mark.parametrize("shape", SHAPES)
def test_esd_with_eta_minus_one_is_the_model_itself(shape):
    c = normal(*shape)
    n = normal(*shape, seed=1)
    torch.testing.assert_close(mf.esd_target(c, n, -1.0), c)
    assert torch.equal(mf.esd_target(c, n, 0.0), n)


@pytest.mark.parametrize("eta", [0.5, 2.0])
def test_the_rewrite_is_the_classic_with_eta_one_less(eta):
    c = normal(3, 2, 5)
    n = normal(3, 2, 5, seed=1)
    torch.testing.assert_close(mf.esd_from_target(c, c, n, eta), mf.esd_target(c, n, eta - 1))


@pytest.mark.parametrize("eta", [1.0, 2.5])
def test_targets_hold_in_every_parametrisation(eta):
    """v is an affine function of ε at a given x_t, and the coefficients of a target add up to 1."""
    c, n, k, x = (normal(2, 3, 4, 4, seed=seed) for seed in range(4))

    def v(epsilon: Tensor) -> Tensor:
        return 1.3 * epsilon - 0.7 * x

    torch.testing.assert_close(mf.esd_target(v(c), v(n), eta), v(mf.esd_target(c, n, eta)))
    torch.testing.assert_close(
        mf.esd_from_target(v(k), v(c), v(n), eta), v(mf.esd_from_target(k, c, n, eta))
    )


def test_shapes_are_checked():
    with pytest.raises(InputError, match="one shape"):
        mf.esd_target(torch.zeros(2, 3), torch.zeros(3), 1.0)


# ---------------------------------------------------------------- score distillation


def three_samples(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Three normal draws of one generator."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c = (torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return a, b, c


def sid_by_loops(teacher: Tensor, fake: Tensor, generated: Tensor, alpha: float) -> list[float]:
    values = []
    for a, b, x in zip(
        teacher.flatten(1).tolist(),
        fake.flatten(1).tolist(),
        generated.flatten(1).tolist(),
        strict=True,
    ):
        weight = max(sum(abs(p - r) for p, r in zip(a, x, strict=True)) / len(a), 1e-5)
        values.append(
            sum((p - q) * ((p - r) - alpha * (p - q)) for p, q, r in zip(a, b, x, strict=True))
            / weight
        )
    return values


@pytest.mark.parametrize("alpha", [1.0, 1.2, 0.5])
@pytest.mark.parametrize("shape", [(3, 1, 2, 2), (2, 4, 4, 4), (5, 7)])
def test_sid_is_its_equation(alpha: float, shape: tuple[int, ...]) -> None:
    """Fails when a sum is a mean, a sign is turned, or the weight is that of another pair."""
    teacher, fake, generated = three_samples(*shape)
    assert sid_loss(teacher, fake, generated, alpha).tolist() == pytest.approx(
        sid_by_loops(teacher, fake, generated, alpha), rel=1e-12
    )


def test_alpha_one_is_the_plain_product() -> None:
    """Fails when α = 1 is not Σ (x_φ − x_ψ)(x_ψ − x̂_0) / ω."""
    teacher, fake, generated = three_samples(4, 3, 2, 2)
    weight = (teacher - generated).abs().flatten(1).mean(1)
    expected = ((teacher - fake) * (fake - generated)).flatten(1).sum(1) / weight
    assert torch.allclose(sid_loss(teacher, fake, generated, alpha=1.0), expected, rtol=1e-12)


def test_the_weight_carries_no_gradient_and_has_a_floor() -> None:
    """Fails when the weight is differentiated, or a perfect generator divides by 0."""
    teacher, fake, generated = three_samples(3, 8)
    generated.requires_grad_(True)
    weight = (teacher - generated.detach()).abs().mean(1, keepdim=True)
    (gradient,) = torch.autograd.grad(sid_loss(teacher, fake, generated, 1.2).sum(), generated)
    assert torch.allclose(gradient, -(teacher - fake) / weight, rtol=1e-12)
    value = sid_loss(teacher, fake, teacher, 1.2)
    assert torch.isfinite(value).all()
    assert value.tolist() == pytest.approx(
        [-1.2 * float(row.square().sum()) / 1e-5 for row in teacher - fake]
    )


def test_gradients_flow_through_both_denoisers() -> None:
    """Fails when one of them is cut off: the derivative is taken by finite differences, the weight
    held fixed.
    """
    teacher, fake, generated = three_samples(2, 3)
    weight = (teacher - generated).abs().mean(1)

    def fixed_weight_loss(values: list[Tensor]) -> Tensor:
        a, b, x = values
        return (((a - b) * ((a - x) - 1.2 * (a - b))).sum(1) / weight).sum()

    leaves = [value.clone().requires_grad_(True) for value in (teacher, fake, generated)]
    gradients = torch.autograd.grad(sid_loss(leaves[0], leaves[1], leaves[2], 1.2).sum(), leaves)
    for argument in range(3):
        for row in range(2):
            for column in range(3):
                up = [v.clone() for v in (teacher, fake, generated)]
                down = [v.clone() for v in (teacher, fake, generated)]
                up[argument][row, column] += 1e-6
                down[argument][row, column] -= 1e-6
                slope = float(fixed_weight_loss(up) - fixed_weight_loss(down)) / 2e-6
                assert float(gradients[argument][row, column]) == pytest.approx(
                    slope, rel=1e-5, abs=1e-7
                )


def test_where_teacher_and_fake_agree_nothing_moves() -> None:
    """Fails when a generator is pushed although its score is the teacher's."""
    teacher, _, generated = three_samples(2, 5)
    generated.requires_grad_(True)
    loss = sid_loss(teacher, teacher, generated)
    assert loss.tolist() == [0, 0]
    (gradient,) = torch.autograd.grad(loss.sum(), generated)
    assert not gradient.any()


def test_the_fake_scores_loss_adds_up() -> None:
    """Fails when the elements of a sample are averaged."""
    prediction, target, _ = three_samples(3, 2, 2, 2)
    expected = [
        sum((p - q) ** 2 for p, q in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
        for a, b in zip(prediction, target, strict=True)
    ]
    assert fake_score_loss(prediction, target).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: fake_score_loss(a, b),
        lambda a, b: sid_loss(a, b, a),
        lambda a, b: sid_loss(a, a, b),
    ],
)
def test_shapes_are_not_broadcast(call: Any) -> None:
    """Fails when `[B, 1]` against `[B, C]` gives a number."""
    with pytest.raises(InputError, match="one shape"):
        call(torch.zeros(2, 3), torch.zeros(2, 1))


# ---------------------------------------------------------------- cross-attention edits


def published(
    weight: Tensor, keys: Tensor, guides: Tensor, preserved: Tensor, lam: float, a: float, b: float
) -> Tensor:
    """Equation 7 of UCE, one pair at a time, with an explicit inverse."""
    target = lam * weight
    gram = lam * torch.eye(weight.shape[1], dtype=torch.float64)
    for c, g in zip(keys, guides, strict=True):
        target = target + a * torch.outer(weight @ g, c)
        gram = gram + a * torch.outer(c, c)
    for p in preserved:
        target = target + b * torch.outer(weight @ p, p)
        gram = gram + b * torch.outer(p, p)
    return target @ torch.linalg.inv(gram)


@pytest.mark.parametrize(
    ("outputs", "width", "pairs", "preserved"),
    [(3, 5, 1, 0), (7, 4, 3, 2), (2, 6, 9, 20), (5, 3, 0, 4)],
)
@pytest.mark.parametrize(("lam", "a", "b"), [(0.5, 1.0, 1.0), (0.1, 2.0, 0.3)])
def test_uce_is_its_closed_form(outputs, width, pairs, preserved, lam, a, b):
    w = normal(outputs, width)
    c = normal(pairs, width, seed=1)
    g = normal(pairs, width, seed=2)
    p = normal(preserved, width, seed=3)
    gram, change = mf.uce_sums(c, g, p, lam, a, b)
    torch.testing.assert_close(
        mf.uce_update(w, gram, change), published(w, c, g, p, lam, a, b), rtol=1e-10, atol=1e-10
    )


def test_uce_minimises_its_objective():
    """The gradient of the published objective vanishes at the edited weights."""
    w = normal(4, 6)
    c = normal(3, 6, seed=1)
    g = normal(3, 6, seed=2)
    p = normal(5, 6, seed=3)
    edited = mf.uce_update(w, *mf.uce_sums(c, g, p, 0.5, 1.5, 0.7)).requires_grad_()
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
    w = normal(6, 8).to(dtype)
    c = normal(3, 8, seed=1)
    nothing = torch.zeros(0, 8)
    for keys, guides in ((nothing, nothing), (c, c)):
        edited = mf.uce_update(w, *mf.uce_sums(keys, guides, normal(5, 8, seed=2), 0.5, 1.0, 1.0))
        assert edited.dtype == dtype and torch.equal(edited, w)


def test_a_light_pull_maps_keys_to_guides_and_keeps_the_preserved():
    w = normal(4, 12)
    c = normal(2, 12, seed=1)
    g = normal(2, 12, seed=2)
    p = normal(3, 12, seed=3)
    edited = mf.uce_update(w, *mf.uce_sums(c, g, p, 1e-9, 1.0, 1.0))
    torch.testing.assert_close(edited @ c.T, w @ g.T, atol=1e-6, rtol=0)
    torch.testing.assert_close(edited @ p.T, w @ p.T, atol=1e-6, rtol=0)


def test_a_layer_of_another_width_is_refused():
    with pytest.raises(InputError, match="width 5"):
        mf.uce_update(normal(3, 5), torch.eye(4, dtype=torch.float64), normal(4, 4))
