"""Losses of classifiers against the published equations, in Python floats and loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mu.functional as mf
from mu.utils.errors import InputError
from tests.support.loops import (
    draw,
    flags,
    kl,
    labels,
    log_softmax,
    quick,
    same,
    scaled,
    softmax,
    wants_grad,
)

SHAPES = [(1, 2), (7, 3), (5, 10), (7, 2)]


@pytest.mark.parametrize(("b", "k"), SHAPES)
def test_cross_entropies(b, k):
    z = draw(b, k)
    y = labels(b, k)
    q = draw(b, k, seed=3).softmax(-1)
    rows = [log_softmax(row) for row in z.tolist()]
    same(mf.cross_entropy(z, y), [-row[c] for row, c in zip(rows, y.tolist(), strict=True)])
    soft = [
        -sum(a * r for a, r in zip(p, row, strict=True))
        for p, row in zip(q.tolist(), rows, strict=True)
    ]
    same(mf.soft_cross_entropy(z, q), soft)
    one_hot = torch.nn.functional.one_hot(y, k).double()
    torch.testing.assert_close(mf.soft_cross_entropy(z, one_hot), mf.cross_entropy(z, y))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize(("b", "k"), SHAPES)
def test_kl_divergence(b, k, temperature):
    # SCRUB, KD_T (its training objective): T^2 KL(softmax(t/T) || softmax(s/T)),
    # here without 1/B.
    # Mutation that must fail: the arguments swapped, or T instead of T^2.
    s = draw(b, k)
    t = draw(b, k, seed=4)
    want = [
        temperature**2 * kl(softmax(scaled(tr, temperature)), log_softmax(scaled(sr, temperature)))
        for sr, tr in zip(s.tolist(), t.tolist(), strict=True)
    ]
    same(mf.kl_divergence(s, t, temperature), want)


@pytest.mark.parametrize(("b", "k"), SHAPES)
def test_kl_from_probabilities_and_from_uniform(b, k):
    s = draw(b, k)
    q = draw(b, k, seed=5).softmax(-1)
    q[0] = torch.nn.functional.one_hot(torch.tensor(k - 1), k)  # zeros count as nothing
    rows = s.tolist()
    same(
        mf.kl_from_probabilities(s, q),
        [kl(p, log_softmax(r)) for p, r in zip(q.tolist(), rows, strict=True)],
    )
    # first stage of the winning entry of the NeurIPS 2023 challenge
    same(mf.uniform_kl(s), [kl([1 / k] * k, log_softmax(r)) for r in rows])


def test_extreme_logits_stay_finite():
    z = torch.tensor([[80.0, -80.0, 0.0], [-80.0, 80.0, 80.0], [0.0, 0.0, -80.0]])
    t = z.flip(-1)
    y = torch.tensor([1, 0, 2])
    u = torch.tensor([True, False, True])
    terms = {
        "cross_entropy": lambda s: mf.cross_entropy(s, y),
        "soft": lambda s: mf.soft_cross_entropy(s, t.softmax(-1)),
        "kl": lambda s: mf.kl_divergence(s, t, 2.0),
        "kl_from": lambda s: mf.kl_from_probabilities(s, t.softmax(-1)),
        "uniform": mf.uniform_kl,
        "bad_teacher": lambda s: mf.bad_teacher_loss(s, t, -t, u),
        "delete": lambda s: mf.kl_from_probabilities(s, mf.delete_target(t, y)),
    }
    for name, term in terms.items():
        s = wants_grad(z)
        value = term(s)
        value.sum().backward()
        assert s.grad is not None and value.isfinite().all() and s.grad.isfinite().all(), name
        assert (value >= -1e-5).all(), name


def test_gradients():
    z = wants_grad(draw(3, 4))
    t = draw(3, 4, seed=6)
    y = labels(3, 4)
    u = torch.tensor([True, False, True])
    q = t.softmax(-1)
    for term in (
        lambda s: mf.cross_entropy(s, y),
        lambda s: mf.soft_cross_entropy(s, q),
        lambda s: mf.kl_divergence(s, t, 3.0),
        lambda s: mf.kl_from_probabilities(s, q),
        mf.uniform_kl,
        lambda s: mf.bad_teacher_loss(s, t, -t, u, 2.0),
    ):
        assert torch.autograd.gradcheck(term, (z,))


logits = st.integers(2, 6).flatmap(
    lambda k: st.lists(st.floats(-60, 60), min_size=2 * k, max_size=2 * k)
)


@quick
@given(logits, st.floats(0.5, 8))
def test_divergences_are_not_negative_and_zero_on_equal_logits(values, temperature):
    s, t = torch.tensor(values, dtype=torch.float64).view(2, 1, -1)
    assert (mf.kl_divergence(s, t, temperature) >= -1e-10).all()
    assert (mf.kl_divergence(s, s.clone(), temperature) == 0).all()
    assert (mf.uniform_kl(s) >= -1e-10).all()
    torch.testing.assert_close(
        mf.kl_from_probabilities(s, s.softmax(-1)), s.new_zeros(1), rtol=0, atol=1e-10
    )


@quick
@given(logits, st.floats(0.5, 8))
def test_temperature_enters_as_t_squared(values, temperature):
    """With scaled logits the value grows by T^2 and the gradient by T; mutation that must fail: no
    T^2.
    """
    s, t = torch.tensor(values, dtype=torch.float64).view(2, 1, -1)
    hot = wants_grad(s)
    cold = wants_grad(s / temperature)
    value = mf.kl_divergence(hot, t, temperature)
    plain = mf.kl_divergence(cold, t / temperature)
    torch.testing.assert_close(value, temperature**2 * plain, rtol=1e-9, atol=1e-9)
    value.backward(), plain.backward()
    torch.testing.assert_close(
        hot.grad, None if cold.grad is None else temperature * cold.grad, rtol=1e-9, atol=1e-9
    )


def test_gradient_at_high_temperature():
    # Hinton et al., arXiv 1503.02531: T^2 times the gradient tends to (s - t - mean) / K
    s = wants_grad(draw(4, 5))
    t = draw(4, 5, seed=7)
    mf.kl_divergence(s, t, 1e5).sum().backward()
    difference = s.detach() - t
    torch.testing.assert_close(
        s.grad, (difference - difference.mean(1, keepdim=True)) / 5, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("b", "k"), SHAPES)
def test_bad_teacher_is_its_equation(b, k, temperature):
    # Chundawat et al., AAAI 2023, the objective L(x, l_u). No T^2.
    s = draw(b, k)
    good = draw(b, k, seed=8)
    bad = draw(b, k, seed=9)
    u = flags(b)
    want = []
    for row in range(b):
        p_good = softmax(scaled(good[row].tolist(), temperature))
        p_bad = softmax(scaled(bad[row].tolist(), temperature))
        flag = float(u[row])
        target = [flag * x + (1 - flag) * y for x, y in zip(p_bad, p_good, strict=True)]
        want.append(kl(target, log_softmax(scaled(s[row].tolist(), temperature))))
        torch.testing.assert_close(
            mf.bad_teacher_target(good, bad, u, temperature)[row], torch.tensor(target).double()
        )
    same(mf.bad_teacher_loss(s, good, bad, u, temperature), want)
    same(mf.bad_teacher_loss(s, good, bad, u.long(), temperature), want)
    # the released code's scalar averages over batch and classes
    target = mf.bad_teacher_target(good, bad, u, temperature)
    released = torch.nn.KLDivLoss(reduction="none")((s / temperature).log_softmax(1), target).mean()
    torch.testing.assert_close(
        mf.bad_teacher_loss(s, good, bad, u, temperature).mean() / k, released
    )


@pytest.mark.parametrize(("b", "k"), SHAPES)
def test_delete_target(b, k):
    # Zhou et al., CVPR 2025. Mutation that must fail: the target class masked
    # after the softmax.
    t = draw(b, k)
    y = labels(b, k)
    target = mf.delete_target(t, y)
    for row, label in enumerate(y.tolist()):
        powers = [math.exp(z) for c, z in enumerate(t[row].tolist()) if c != label]
        want = [
            0.0 if c == label else math.exp(z) / sum(powers) for c, z in enumerate(t[row].tolist())
        ]
        torch.testing.assert_close(target[row], torch.tensor(want).double())
        assert target[row, label] == 0
    divergences = [kl(q, log_softmax(z)) for q, z in zip(target.tolist(), t.tolist(), strict=True)]
    same(mf.kl_from_probabilities(t, target), divergences)
    with pytest.raises(InputError):
        mf.delete_target(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError):
        mf.kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3), 0.0)
    with pytest.raises(InputError):
        mf.kl_divergence(torch.zeros(2, 3), torch.zeros(1, 3))
