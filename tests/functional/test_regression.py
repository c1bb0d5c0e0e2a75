"""Errors, attention distances and Blindspot's loss against the published equations, in loops."""

from __future__ import annotations

import math

import pytest
import torch

import mu.functional as mf
from mu.utils.errors import InputError
from tests.support.loops import draw, same, wants_grad


def map_of(activation: list) -> list[float]:
    """Channel mean of squares, flattened, divided by its norm, for [C][H][W]
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
def test_blindspot_is_its_equation(forget):
    # Tarun et al., ICML 2023: r [L1(f, proxy) + 50 sum_l mean (A - A_proxy)^2] +
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
            a_map = map_of(a[i].tolist())
            p_map = map_of(p[i].tolist())
            distance += sum((m - n) ** 2 for m, n in zip(a_map, p_map, strict=True)) / len(a_map)
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


def test_gradients():
    z = wants_grad(draw(3, 4))
    t = draw(3, 4, seed=6)
    u = torch.tensor([True, False, True])
    for term in (
        lambda s: mf.squared_error(s, t),
        lambda s: mf.absolute_error(s, t),
        lambda s: mf.attention_distance(s, t),
        lambda s: mf.attention_distance(s.view(3, 2, 2), t.view(3, 2, 2)),
        lambda s: mf.blindspot_loss(s[:, 0], t[:, 0], t[:, 1], [s], [t], u),
    ):
        assert torch.autograd.gradcheck(term, (z,))


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError):
        mf.blindspot_loss(*torch.zeros(3, 2), [torch.zeros(2, 2)], [], torch.ones(2))
