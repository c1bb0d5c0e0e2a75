"""Dampening, inverse curvature and Fisher noise against the published rules, in Python floats."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mu.functional.curvature import (
    WoodFisher,
    fisher_class_rows,
    fisher_noise_variance,
    ssd_dampen,
    woodfisher,
    woodfisher_reference,
)
from mu.utils.errors import InputError
from tests.support.loops import normal

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
importance = st.lists(st.floats(0, 1e6) | st.just(0.0), min_size=5, max_size=5)


@quick
@given(importance, importance, st.floats(0, 100), st.floats(0, 5))
def test_ssd_is_its_equation(forget, everything, alpha, lam):
    # Foster et al., AAAI 2024 (selection and dampening rules).
    # Mutation that must fail: the factor without its cap at 1.
    weight = normal(5)
    both = torch.tensor([forget, everything], dtype=torch.float64)
    got = ssd_dampen(weight, both[0], both[1], alpha, lam)
    for old, new, i_f, i_d in zip(weight.tolist(), got.tolist(), forget, everything, strict=True):
        selected = i_f > alpha * i_d
        assert new == pytest.approx(
            min(lam * i_d / i_f, 1.0) * old if selected else old, rel=1e-12, abs=1e-300
        )
        assert abs(new) <= abs(old) and new * old >= 0
        if not selected:
            assert new == old


def test_ssd_refuses_negative_constants():
    with pytest.raises(InputError):
        ssd_dampen(*torch.ones(3, 2), alpha=-1.0, lam=1.0)


@quick
@given(st.integers(1, 7), st.integers(1, 6), st.sampled_from([1.0, 0.1, 1e-3]), st.integers(0, 99))
def test_woodfisher_is_the_inverse(n, p, damping, seed):
    # Singh and Alistarh, NeurIPS 2020: the recursion equals the inverse of damping I + 1/N sum g
    # g^T
    gradients = normal(n, p, seed=seed)
    vector = normal(p, seed=seed + 1)
    dense = torch.zeros(p, p, dtype=torch.float64)
    for i in range(p):
        for j in range(p):
            dense[i, j] = sum(g[i] * g[j] for g in gradients.tolist()) / n + (
                damping if i == j else 0.0
            )
    want = torch.linalg.inv(dense) @ vector
    torch.testing.assert_close(woodfisher(gradients, vector, damping), want, rtol=1e-8, atol=1e-8)
    backwards = woodfisher(list(gradients.flip(0)), vector, damping)
    torch.testing.assert_close(backwards, want, rtol=1e-8, atol=1e-8)  # the order does not matter


def test_woodfisher_knows_how_many_gradients_come():
    inverse = WoodFisher(2, damping=0.1)
    inverse.update(normal(3))
    with pytest.raises(InputError):
        inverse.solve(normal(3))
    inverse.update(normal(3, seed=1))
    with pytest.raises(InputError):
        inverse.update(normal(3))
    for count, damping in ((0, 1.0), (3, 0.0)):
        with pytest.raises(InputError):
            WoodFisher(count, damping)


def recursion(gradients: list[list[float]], v: list[float], m: int) -> list[float]:
    """The recursion of the released code, one number at a time."""
    p = len(v)
    o = list(gradients[0])
    k = list(v)
    for index in range(1, len(gradients)):
        if index > m + 1:  # the sample of index m + 1 is still used
            break
        g = gradients[index]
        t = sum(o[i] * g[i] for i in range(p))
        kg = sum(k[i] * g[i] for i in range(p))
        k = [k[i] - kg / (m + t) * o[i] for i in range(p)]
        o = [o[i] - t / (m + t) * o[i] for i in range(p)]
    return k


@pytest.mark.parametrize(("n", "m"), [(1, 1000), (9, 1000), (9, 3), (5, 4), (6, 4), (7, 4)])
def test_reference_recursion(n, m):
    gradients = normal(n, 4)
    vector = normal(4, seed=1)
    before = gradients.clone(), vector.clone()
    read = []

    def stream():
        for i, gradient in enumerate(gradients):
            read.append(i)
            yield gradient

    got = woodfisher_reference(stream(), vector, m)
    torch.testing.assert_close(
        got, torch.tensor(recursion(gradients.tolist(), vector.tolist(), m)).double()
    )
    assert len(read) == min(n, m + 2)
    assert torch.equal(before[0], gradients) and torch.equal(before[1], vector)


def test_reference_recursion_is_not_the_inverse():
    """The quirk: it moves along the first gradient only, and it depends on the order."""
    gradients = normal(6, 4)
    vector = normal(4, seed=1)
    got = woodfisher_reference(gradients, vector, m=6)
    change = got - vector
    first = gradients[0]
    # parallel to g_1
    assert abs(change @ first) == pytest.approx((change.norm() * first.norm()).item())
    assert not torch.allclose(got, woodfisher(gradients, vector, damping=1.0), atol=1e-2)
    assert not torch.allclose(got, woodfisher_reference(gradients.flip(0), vector, m=6), atol=1e-2)


def variance_of(fisher: Tensor, alpha: float, classes: int) -> Tensor:
    """The rules of the released code, one number at a time."""
    classifier = fisher.shape[0] == classes
    flat = []
    for f in fisher.flatten().tolist():
        v = min(1 / (f + 1e-8), 1e3)
        flat.append(alpha * (min(v, 1e2) if classifier else v))
    table = torch.tensor(flat, dtype=torch.float64).view(fisher.shape)
    if fisher.ndim > 1:
        for row in range(fisher.shape[0]):
            for rest in range(math.prod(fisher.shape[2:])):
                column = table[row].flatten(1)[:, rest] if fisher.ndim > 2 else table[row]
                column[:] = sum(column.tolist()) / fisher.shape[1]
    return table * 10 if classifier or fisher.ndim == 1 else table


@pytest.mark.parametrize(
    "shape", [(10, 6), (10,), (6,), (4, 3, 2, 2), (10, 3, 2, 2), (7, 10), (10, 1)]
)
def test_fisher_noise_variance(shape):
    # Golatkar et al., CVPR 2020, and the rules of the released code.
    # Mutation that must fail: times 10 twice for the classifier's bias.
    fisher = normal(*shape).square() * torch.logspace(
        -6, 1, math.prod(shape), dtype=torch.float64
    ).view(shape)
    fisher.view(-1)[0] = 0
    got = fisher_noise_variance(fisher, 1e-6, num_classes=10)
    torch.testing.assert_close(got, variance_of(fisher, 1e-6, 10), rtol=1e-12, atol=0)
    assert got.shape == fisher.shape and (got > 0).all() and (got <= 1e4 * 1e-6 * (1 + 1e-12)).all()
    got.view(-1)[0] = 5  # a tensor of its own, not a repeated view
    assert (got == 5).sum() == 1


def test_fisher_class_rows():
    weight = normal(10, 4)
    variance = torch.ones(10, 4, dtype=torch.float64)
    new_mean, new_variance = fisher_class_rows(weight, variance, forget_class=3, num_classes=10)
    assert (new_mean[3] == 0).all() and (new_variance[3] == 1e-4).all()
    other_classes = [c for c in range(10) if c != 3]
    assert (
        torch.equal(new_mean[other_classes], weight[other_classes])
        and (new_variance[other_classes] == 1).all()
    )
    assert (weight[3] != 0).all() and (variance == 1).all(), "the arguments stay as they were"
    bias_mean, bias_variance = fisher_class_rows(
        normal(10), torch.ones(10), 0, 10, row_variance=1e-3
    )
    assert (
        bias_mean[0] == 0
        and bias_variance[0].item() == pytest.approx(1e-3)
        and bias_variance[1] == 1
    )
    other = normal(6, 4)
    assert fisher_class_rows(other, other, 3, 10)[0] is other
    # -1 means "no class" in the released code, and there sets the last class's row
    for wrong in (
        -1,
        10,
    ):
        with pytest.raises(InputError):
            fisher_class_rows(weight, variance, wrong, 10)
