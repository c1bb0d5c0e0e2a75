"""Losses of SiD and SFD against their equations, written out in float64 loops.

Zhou et al., ICML 2024, arXiv 2404.04057, equation of the SiD loss with α; Chen et al., ICLR 2025,
arXiv 2409.11219, `DDPM/functions/losses.py` of the released code.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mu.functional.diffusion import fake_score_loss, sid_loss
from mu.utils.errors import InputError


def drawn(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    one, two, three = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    return one, two, three


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
    teacher, fake, generated = drawn(*shape)
    assert sid_loss(teacher, fake, generated, alpha).tolist() == pytest.approx(
        sid_by_loops(teacher, fake, generated, alpha), rel=1e-12
    )


def test_alpha_one_is_the_plain_product() -> None:
    """Fails when α = 1 is not Σ (x_φ − x_ψ)(x_ψ − x̂_0) / ω."""
    teacher, fake, generated = drawn(4, 3, 2, 2)
    weight = (teacher - generated).abs().flatten(1).mean(1)
    wanted = ((teacher - fake) * (fake - generated)).flatten(1).sum(1) / weight
    assert torch.allclose(sid_loss(teacher, fake, generated, alpha=1.0), wanted, rtol=1e-12)


def test_the_weight_carries_no_gradient_and_has_a_floor() -> None:
    """Fails when the weight is differentiated, or a perfect generator divides by 0."""
    teacher, fake, generated = drawn(3, 8)
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
    teacher, fake, generated = drawn(2, 3)
    weight = (teacher - generated).abs().mean(1)

    def held(values: list[Tensor]) -> Tensor:
        a, b, x = values
        return (((a - b) * ((a - x) - 1.2 * (a - b))).sum(1) / weight).sum()

    given = [value.clone().requires_grad_(True) for value in (teacher, fake, generated)]
    gradients = torch.autograd.grad(sid_loss(given[0], given[1], given[2], 1.2).sum(), given)
    for place in range(3):
        for row in range(2):
            for column in range(3):
                up = [v.clone() for v in (teacher, fake, generated)]
                down = [v.clone() for v in (teacher, fake, generated)]
                up[place][row, column] += 1e-6
                down[place][row, column] -= 1e-6
                slope = float(held(up) - held(down)) / 2e-6
                assert float(gradients[place][row, column]) == pytest.approx(
                    slope, rel=1e-5, abs=1e-7
                )


def test_where_teacher_and_fake_agree_nothing_moves() -> None:
    """Fails when a generator is pushed although its score is the teacher's."""
    teacher, _, generated = drawn(2, 5)
    generated.requires_grad_(True)
    loss = sid_loss(teacher, teacher, generated)
    assert loss.tolist() == [0, 0]
    (gradient,) = torch.autograd.grad(loss.sum(), generated)
    assert not gradient.any()


def test_the_fake_scores_loss_adds_up() -> None:
    """Fails when the elements of a sample are averaged."""
    prediction, target, _ = drawn(3, 2, 2, 2)
    wanted = [
        sum((p - q) ** 2 for p, q in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
        for a, b in zip(prediction, target, strict=True)
    ]
    assert fake_score_loss(prediction, target).tolist() == pytest.approx(wanted, rel=1e-12)


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
