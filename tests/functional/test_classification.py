"""Losses against the published equations, stated again in Python floats and loops."""

from __future__ import annotations

import doctest
import importlib
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import mu.functional as mf
from mu.attacks.fgsm import fgsm
from mu.utils.errors import InputError

SHAPES = [(1, 2), (7, 3), (5, 10), (7, 2)]
quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def draw(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return (
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        * scale
    )


def labels(b: int, k: int, seed: int = 1) -> Tensor:
    return torch.randint(k, (b,), generator=torch.Generator().manual_seed(seed))


def flags(b: int, seed: int = 2) -> Tensor:
    return torch.rand(b, generator=torch.Generator().manual_seed(seed)) < 0.4


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(z - top) for z in row]
    return [p / sum(powers) for p in powers]


def log_softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = math.log(sum(math.exp(z - top) for z in row)) + top
    return [z - total for z in row]


def kl(q: list[float], log_p: list[float]) -> float:
    return sum(a * (math.log(a) - b) for a, b in zip(q, log_p, strict=True) if a > 0)


def scaled(row: list[float], temperature: float) -> list[float]:
    return [z / temperature for z in row]


def same(got: Tensor, want: list[float], tolerance: float = 1e-11) -> None:
    assert got.shape == (len(want),), "one value per example"
    torch.testing.assert_close(
        got.double(), torch.tensor(want, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


def wants_grad(x: Tensor) -> Tensor:
    return x.clone().requires_grad_()


@pytest.mark.parametrize("name", ["classification", "balancing", "regression", "penalties"])
def test_worked_examples_of_the_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"mu.functional.{name}"))
    assert result.attempted and result.failed == 0


# ---------------------------------------------------------------- cross-entropy and divergences


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
    # SCRUB, KD_T (its training objective); vision spec 2.11: T^2 KL(softmax(t/T) || softmax(s/T)),
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
    # first stage of the winning entry of the NeurIPS 2023 challenge; vision spec 2.24.6
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
        lambda s: mf.squared_error(s, t),
        lambda s: mf.absolute_error(s, t),
        lambda s: mf.attention_distance(s, t),
        lambda s: mf.attention_distance(s.view(3, 2, 2), t.view(3, 2, 2)),
        lambda s: mf.blindspot_loss(s[:, 0], t[:, 0], t[:, 1], [s], [t], u),
        lambda s: mf.l1_norm([s, s[0]]),
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


# ---------------------------------------------------------------- targets of teachers


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("b", "k"), SHAPES)
def test_bad_teacher(b, k, temperature):
    # Chundawat et al., AAAI 2023, the objective L(x, l_u); vision spec 2.12. No T^2.
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
    # Zhou et al., CVPR 2025; vision spec 2.24.2. Mutation that must fail: the target class masked
    # after the softmax.
    t = draw(b, k)
    y = labels(b, k)
    target = mf.delete_target(t, y)
    for row, label in enumerate(y.tolist()):
        others = [math.exp(z) for c, z in enumerate(t[row].tolist()) if c != label]
        want = [
            0.0 if c == label else math.exp(z) / sum(others) for c, z in enumerate(t[row].tolist())
        ]
        torch.testing.assert_close(target[row], torch.tensor(want).double())
        assert target[row, label] == 0
    divergences = [kl(q, log_softmax(z)) for q, z in zip(target.tolist(), t.tolist(), strict=True)]
    same(mf.kl_from_probabilities(t, target), divergences)
    with pytest.raises(InputError):
        mf.delete_target(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))


# ---------------------------------------------------------------- regression


def map_of(activation: list) -> list[float]:
    """Channel mean of squares, flattened, divided by its norm (vision spec 2.17), for [C][H][W]
    lists.
    """
    c = len(activation)
    h = len(activation[0])
    w = len(activation[0][0])
    energy = [
        sum(activation[i][y][x] ** 2 for i in range(c)) / c for y in range(h) for x in range(w)
    ]
    norm = math.sqrt(sum(e * e for e in energy))
    return [e / norm for e in energy]


@pytest.mark.parametrize(
    "forget", [[True], [False], [True] * 2 + [False] * 5, [True] * 4 + [False]]
)
def test_blindspot(forget):
    # Tarun et al., ICML 2023; vision spec 2.17: r [L1(f, proxy) + 50 sum_l mean (A - A_proxy)^2] +
    # (1 - r) L1(f, y)
    b = len(forget)
    f = draw(b)
    y = draw(b, seed=11)
    proxy = draw(b, seed=12)
    acts = [draw(b, 3, 2, 4, seed=13), draw(b, 5, 1, 1, seed=14)]
    proxies = [draw(b, 3, 2, 4, seed=15), draw(b, 5, 1, 1, seed=16)]
    u = torch.tensor(forget)
    y[u] = math.nan  # the targets of forget samples are not read
    forget_terms = []
    retain_terms = []
    for i in range(b):
        if not forget[i]:
            retain_terms.append(abs(f[i].item() - y[i].item()))
            continue
        distance = 0.0
        for a, p in zip(acts, proxies, strict=True):
            one = map_of(a[i].tolist())
            other = map_of(p[i].tolist())
            distance += sum((m - n) ** 2 for m, n in zip(one, other, strict=True)) / len(one)
        forget_terms.append(abs(f[i].item() - proxy[i].item()) + 50 * distance)
    r = len(forget_terms) / b
    mean_forget = sum(forget_terms) / len(forget_terms) if forget_terms else 0.0
    mean_retain = sum(retain_terms) / len(retain_terms) if retain_terms else 0.0
    prediction = wants_grad(f)
    loss = mf.blindspot_loss(prediction, y, proxy, acts, proxies, u)
    same(loss.detach(), forget_terms + retain_terms)
    assert loss.mean().item() == pytest.approx(r * mean_forget + (1 - r) * mean_retain, rel=1e-12)
    loss.sum().backward()
    assert prediction.grad is not None and prediction.grad.isfinite().all()


def test_attention_of_a_fully_connected_layer():
    a = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    want = torch.tensor([[1 / math.sqrt(17), 4 / math.sqrt(17)], [0, 0]], dtype=torch.float64)
    torch.testing.assert_close(mf.attention_map(a), want)
    assert (mf.attention_distance(a, a.clone()) == 0).all()
    # a constant map would give 0
    same(mf.attention_distance(a, a.flip(1)), [(3 / math.sqrt(17)) ** 2, 0.0])
    same(mf.attention_distance(7 * a, a), [0.0, 0.0])
    with pytest.raises(InputError):
        mf.attention_map(torch.zeros(3))
    with pytest.raises(InputError):
        mf.attention_distance(torch.zeros(3, 4), torch.zeros(3, 5))


def test_errors_of_regression():
    p = draw(4, 3)
    t = draw(4, 3, seed=17)
    rows = [
        [a - b for a, b in zip(x, y, strict=True)]
        for x, y in zip(p.tolist(), t.tolist(), strict=True)
    ]
    same(mf.squared_error(p, t), [sum(d * d for d in row) / 3 for row in rows])
    same(mf.absolute_error(p, t), [sum(abs(d) for d in row) / 3 for row in rows])
    same(mf.absolute_error(p[:, 0], t[:, 0]), [abs(row[0]) for row in rows])
    for error in (mf.squared_error, mf.absolute_error):
        with pytest.raises(InputError):  # would broadcast to [4, 4]
            error(p[:, :1], t[:, 0])


# ---------------------------------------------------------------- sparsity, images, weights of terms


def test_l1_norm_and_its_schedule():
    # Jia et al., NeurIPS 2023; vision spec 2.7
    tensors = [draw(2, 3), draw(4), torch.tensor(-2.0, dtype=torch.float64)]
    assert mf.l1_norm(tensors).item() == pytest.approx(
        sum(abs(x) for t in tensors for x in t.flatten().tolist())
    )
    falling = [2 * (1 - e / 10) for e in range(10)]
    assert [mf.l1_sparse_weight(e, 10, 0, 2.0) for e in range(10)] == pytest.approx(falling)
    assert [mf.l1_sparse_weight(e, 5, 5, 0.3) for e in range(5)] == [0.3] * 5
    assert mf.l1_sparse_weight(3, 5, 2, 0.3) == 0
    for call in (lambda: mf.l1_norm([]), lambda: mf.l1_sparse_weight(0, 5, 6, 0.1)):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize("rounded", [False, True])
def test_fgsm(rounded):
    # Goodfellow et al., arXiv 1412.6572; vision spec 2.10
    image = draw(3, 2, seed=18).sigmoid()
    gradient = draw(3, 2, seed=19)
    gradient[0, 0] = 0
    got = fgsm(image, gradient, 0.1, round_to_255=rounded)
    for x, g, new in zip(
        image.flatten().tolist(), gradient.flatten().tolist(), got.flatten().tolist(), strict=True
    ):
        want = min(max(x + 0.1 * ((g > 0) - (g < 0)), 0), 1)
        assert new == pytest.approx(round(want * 255) / 255 if rounded else want)


@quick
@given(st.lists(st.floats(-4, 4), min_size=6, max_size=6), st.floats(-3, 3))
def test_bargain_weights(values, log_scale):
    # Wu and Harandi; vision spec 2.24.3. The Nash condition itself: each weight is the inverse of
    # its gradient's gain.
    g = torch.tensor(values, dtype=torch.float64).view(2, 3) * 10**log_scale
    a = (g[0] @ g[0]).item()
    b = (g[0] @ g[1]).item()
    c = (g[1] @ g[1]).item()
    assume(min(a, c) > 1e-12 and b / math.sqrt(a * c) > -0.99)
    grams = g @ g.T
    nash = torch.stack(mf.nash_weights(grams))
    torch.testing.assert_close(
        nash * (grams @ nash), torch.ones(2, dtype=torch.float64), rtol=1e-8, atol=0
    )
    denominator = a * a * c - a * b * b + 1e-8
    squared = (a * c - b * math.sqrt(a * c)) / denominator
    alpha_r = math.sqrt(squared) if squared >= 0 else math.nan
    alpha_f = (1 - a * alpha_r**2) / (b * alpha_r + 1e-8)
    # not decided by rounding
    if abs(squared * denominator) > 1e-6 * a * c and abs(alpha_f * b * alpha_r) > 1e-6:
        want = (alpha_r, alpha_f) if alpha_r > 0 and alpha_f > 0 else (1.0, 0.1)
        assert [w.item() for w in mf.munba_weights(grams)] == pytest.approx(want, rel=1e-4)


def test_where_the_released_bargain_departs_from_the_solution():
    def grams(scale, cosine):
        return scale * torch.tensor([[1.0, cosine], [cosine, 1.0]], dtype=torch.float64)

    for exact, released in zip(
        mf.nash_weights(grams(1, 0.3)), mf.munba_weights(grams(1, 0.3)), strict=True
    ):
        torch.testing.assert_close(exact, released, rtol=1e-6, atol=0)
    # 1 / (a^2 c), not 1 / sqrt(c)
    assert mf.munba_weights(grams(4, 0.0))[1].item() == pytest.approx(1 / 64)
    assert mf.nash_weights(grams(4, 0.0))[1].item() == pytest.approx(0.5)
    assert (
        mf.munba_weights(grams(1e-6, 0.3))[0].item()
        < 0.01 * mf.nash_weights(grams(1e-6, 0.3))[0].item()
    )
    for no_bargain in (grams(1, -1.0), torch.zeros(2, 2)):
        assert [w.item() for w in mf.nash_weights(no_bargain, fallback=(2.0, 3.0))] == [2.0, 3.0]
    # opposed gradients are no failure to the released form: sqrt(2 / 1e-8) for both
    assert [w.item() for w in mf.munba_weights(grams(1, -1.0))] == pytest.approx(
        [math.sqrt(2e8)] * 2, rel=1e-6
    )
    assert [w.item() for w in mf.munba_weights(torch.zeros(2, 2))] == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 2.0])
def test_sfr_adaptive_weights(lam):
    # Huang et al., NeurIPS 2024; vision spec 2.24.1
    loss = wants_grad(draw(7, seed=20).square())
    inverse = [1 / (x**lam + 1e-15) for x in loss.tolist()]
    got = mf.sfr_adaptive_weights(loss, lam)
    same(got, [len(loss) * x / sum(inverse) for x in inverse])
    assert not got.requires_grad
    assert mf.sfr_adaptive_weights(torch.zeros(3), lam).tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError):
        mf.kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3), 0.0)
    with pytest.raises(InputError):
        mf.kl_divergence(torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(InputError):
        mf.blindspot_loss(*torch.zeros(3, 2), [torch.zeros(2, 2)], [], torch.ones(2))
