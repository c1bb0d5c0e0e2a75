"""Choosing and editing weights against the published rules, stated again in Python floats and
loops.
"""

from __future__ import annotations

import doctest
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mu.functional.curvature
import mu.functional.selection
from mu.functional.curvature import (
    WoodFisher,
    fisher_class_rows,
    fisher_noise_variance,
    ssd_dampen,
    woodfisher,
    woodfisher_reference,
)
from mu.functional.selection import (
    floor_share,
    global_top_mask,
    kth_largest,
    magnitude_prune_mask,
    salun_soft_count,
    soft_threshold,
)
from mu.utils.errors import InputError

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
# few distinct values, so that ties and zeros (of both signs) are the rule
values = st.lists(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-40, 3e38]), min_size=1, max_size=30
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parts(flat: list[float], cut: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The list as two tensors, the first possibly empty, the second with two dimensions."""
    return {
        "a": torch.tensor(flat[:cut], dtype=dtype),
        "b": torch.tensor(flat[cut:], dtype=dtype).unsqueeze(0),
    }


def joined(mask: dict[str, Tensor]) -> list[bool]:
    return torch.cat([m.flatten() for m in mask.values()]).tolist()


@pytest.mark.parametrize("module", [mu.functional.curvature, mu.functional.selection])
def test_worked_examples_of_the_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted >= 3 and result.failed == 0


# ---------------------------------------------------------------- choosing weights


@quick
@given(st.integers(0, 1000), st.integers(1, 1000), st.integers(0, 3000))
def test_floor_share_means_the_fraction(numerator, denominator, n):
    share = Fraction(min(numerator, denominator), denominator)
    assert floor_share(float(share), n) == math.floor(share * n)


def test_floor_share_of_decimals():
    assert int(0.29 * 100) == 28, "why a plain product will not do"
    assert [floor_share(percent / 100, 100) for percent in range(101)] == list(range(101))


@quick
@given(values, st.integers(0, 30), st.floats(0, 1), st.sampled_from([torch.float32, torch.float64]))
def test_top_mask_is_a_stable_sort_cut_off(flat, cut, keep, dtype):
    # SalUn's mask (Fan et al., ICLR 2024; vision spec 2.6): rank globally, keep the first
    # floor(keep n).
    # Mutation that must fail: `scores >= threshold`, which keeps all ties.
    flat = torch.tensor(flat, dtype=dtype).tolist()  # 1e-40 as the dtype has it
    # Python's sort is stable: first come, first kept
    order = sorted(range(len(flat)), key=lambda i: -flat[i])
    chosen = set(order[: floor_share(keep, len(flat))])
    scores = parts(flat, min(cut, len(flat)), dtype)
    mask = global_top_mask(scores, keep)
    assert joined(mask) == [i in chosen for i in range(len(flat))]
    assert {name: m.shape for name, m in mask.items()} == {
        name: s.shape for name, s in scores.items()
    }
    assert all(m.dtype == torch.bool for m in mask.values())


@quick
@given(values, st.data())
def test_kth_largest(flat, data):
    tensor = torch.tensor(flat)
    k = data.draw(st.integers(1, len(flat)))
    value, ties = kth_largest([tensor[: k // 2], tensor[k // 2 :]], k)
    ranked = sorted(tensor.tolist(), reverse=True)
    assert value.item() == ranked[k - 1]
    assert ties == ranked[:k].count(ranked[k - 1])


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64]
)
def test_kth_largest_in_every_dtype(dtype):
    values = (draw(1001) * 50).to(dtype)
    for k in (1, 400, 1001):
        assert (
            kth_largest([values], k)[0].item() == torch.kthvalue(values, 1001 - k + 1).values.item()
        )
    if dtype == torch.float64:  # differences below the resolution of float32 count
        close = torch.tensor([1.0, 1.0 + 1e-12, 1.0 - 1e-12], dtype=dtype)
        assert joined(global_top_mask({"w": close}, 0.34)) == [False, True, False]


def test_masks_of_special_scores():
    assert joined(global_top_mask({"w": torch.zeros(5)}, 0.5)) == [True, True, False, False, False]
    assert joined(global_top_mask({"w": torch.tensor([1.0, math.inf, -math.inf])}, 0.34)) == [
        False,
        True,
        False,
    ]
    assert global_top_mask({}, 0.5) == {}
    for bad in (
        lambda: global_top_mask({"w": torch.tensor([1.0, math.nan])}, 0.5),
        lambda: global_top_mask({"w": torch.ones(3)}, 1.1),
        lambda: magnitude_prune_mask({"w": torch.ones(3)}, -0.1),
        lambda: magnitude_prune_mask({"w": torch.tensor([math.nan])}, 0.5),
        lambda: kth_largest([torch.ones(2)], 3),
    ):
        with pytest.raises(InputError):
            bad()


@quick
@given(values, st.floats(0, 1), st.floats(0, 1))
def test_magnitude_pruning(flat, rate, second):
    # global unstructured magnitude pruning; vision spec 2.7
    weights = parts(flat, len(flat) // 2)
    magnitude = [abs(x) for x in torch.tensor(flat).tolist()]
    mask = magnitude_prune_mask(weights, rate)
    kept = [m for m, stays in zip(magnitude, joined(mask), strict=True) if stays]
    gone = [m for m, stays in zip(magnitude, joined(mask), strict=True) if not stays]
    assert len(gone) == round(rate * len(flat))
    assert not kept or not gone or min(kept) >= max(gone)
    # a second round counts what is left, and brings nothing back
    again = magnitude_prune_mask(weights, second, previous=mask)
    assert sum(joined(again)) == len(kept) - round(second * len(kept))
    assert all(old or not new for old, new in zip(joined(mask), joined(again), strict=True))


def test_magnitude_pruning_agrees_with_torch():
    from torch.nn.utils import prune

    convs = [torch.nn.Conv2d(3, 5, 3), torch.nn.Conv2d(5, 4, 3)]
    weights = {str(i): conv.weight.detach().clone() for i, conv in enumerate(convs)}
    mask = None
    for _ in range(3):  # iterative magnitude pruning
        prune.global_unstructured(
            [(conv, "weight") for conv in convs], prune.L1Unstructured, amount=0.2
        )
        mask = magnitude_prune_mask(weights, 0.2, previous=mask)
        for i, conv in enumerate(convs):
            assert torch.equal(mask[str(i)], dict(conv.named_buffers())["weight_mask"].bool())


@quick
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=9), st.floats(0, 3))
def test_soft_threshold(flat, tau):
    # proximal operator of tau |.|_1; vision spec 2.6 (SalUn-soft)
    delta = torch.tensor(flat, dtype=torch.float64)
    want = [math.copysign(max(abs(x) - tau, 0.0), x) for x in flat]
    for bound in (tau, torch.tensor(tau)):
        got = soft_threshold(delta, bound)
        torch.testing.assert_close(got, torch.tensor(want).double(), rtol=0, atol=1e-6)
        assert (got.abs() <= delta.abs()).all()


def test_salun_soft_zeroes_exactly_its_count():
    delta = draw(101)
    for step in range(11):
        k = salun_soft_count(0.5, 101, step, 10)
        assert k == (101 * (10 - step)) // 20  # floor(rho n (T - t) / T)
        if k:
            tau, _ = kth_largest([delta.abs()], 101 - k + 1)  # the k-th smallest
            assert int((soft_threshold(delta, tau) == 0).sum()) == k
    with pytest.raises(InputError):
        salun_soft_count(0.5, 10, 5, 4)


# ---------------------------------------------------------------- selective synaptic dampening

importance = st.lists(st.floats(0, 1e6) | st.just(0.0), min_size=5, max_size=5)


@quick
@given(importance, importance, st.floats(0, 100), st.floats(0, 5))
def test_ssd(forget, everything, alpha, lam):
    # Foster et al., AAAI 2024 (selection and dampening rules); vision spec 2.13.
    # Mutation that must fail: the factor without its cap at 1.
    weight = draw(5)
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


# ---------------------------------------------------------------- inverse curvature


@quick
@given(st.integers(1, 7), st.integers(1, 6), st.sampled_from([1.0, 0.1, 1e-3]), st.integers(0, 99))
def test_woodfisher_is_the_inverse(n, p, damping, seed):
    # Singh and Alistarh, NeurIPS 2020: the recursion equals the inverse of damping I + 1/N sum g
    # g^T
    gradients = draw(n, p, seed=seed)
    vector = draw(p, seed=seed + 1)
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
    inverse.update(draw(3))
    with pytest.raises(InputError):
        inverse.solve(draw(3))
    inverse.update(draw(3, seed=1))
    with pytest.raises(InputError):
        inverse.update(draw(3))
    for count, damping in ((0, 1.0), (3, 0.0)):
        with pytest.raises(InputError):
            WoodFisher(count, damping)


def recursion(gradients: list[list[float]], v: list[float], m: int) -> list[float]:
    """Vision spec 2.8, step 2, one number at a time."""
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
    gradients = draw(n, 4)
    vector = draw(4, seed=1)
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
    gradients = draw(6, 4)
    vector = draw(4, seed=1)
    got = woodfisher_reference(gradients, vector, m=6)
    change = got - vector
    first = gradients[0]
    # parallel to g_1
    assert abs(change @ first) == pytest.approx((change.norm() * first.norm()).item())
    assert not torch.allclose(got, woodfisher(gradients, vector, damping=1.0), atol=1e-2)
    assert not torch.allclose(got, woodfisher_reference(gradients.flip(0), vector, m=6), atol=1e-2)


# ---------------------------------------------------------------- Fisher forgetting


def variance_of(fisher: Tensor, alpha: float, classes: int) -> Tensor:
    """Vision spec 2.9, one number at a time."""
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
    # Golatkar et al., CVPR 2020, and the rules of the released code; vision spec 2.9.
    # Mutation that must fail: times 10 twice for the classifier's bias.
    fisher = draw(*shape).square() * torch.logspace(
        -6, 1, math.prod(shape), dtype=torch.float64
    ).view(shape)
    fisher.view(-1)[0] = 0
    got = fisher_noise_variance(fisher, 1e-6, num_classes=10)
    torch.testing.assert_close(got, variance_of(fisher, 1e-6, 10), rtol=1e-12, atol=0)
    assert got.shape == fisher.shape and (got > 0).all() and (got <= 1e4 * 1e-6 * (1 + 1e-12)).all()
    got.view(-1)[0] = 5  # a tensor of its own, not a repeated view
    assert (got == 5).sum() == 1


def test_fisher_class_rows():
    weight = draw(10, 4)
    variance = torch.ones(10, 4, dtype=torch.float64)
    new_mean, new_variance = fisher_class_rows(weight, variance, forget_class=3, num_classes=10)
    assert (new_mean[3] == 0).all() and (new_variance[3] == 1e-4).all()
    others = [c for c in range(10) if c != 3]
    assert torch.equal(new_mean[others], weight[others]) and (new_variance[others] == 1).all()
    assert (weight[3] != 0).all() and (variance == 1).all(), "the arguments stay as they were"
    bias_mean, bias_variance = fisher_class_rows(draw(10), torch.ones(10), 0, 10, row_variance=1e-3)
    assert (
        bias_mean[0] == 0
        and bias_variance[0].item() == pytest.approx(1e-3)
        and bias_variance[1] == 1
    )
    other = draw(6, 4)
    assert fisher_class_rows(other, other, 3, 10)[0] is other
    # -1 means "no class" in the released code, and there sets the last class's row
    for wrong in (
        -1,
        10,
    ):
        with pytest.raises(InputError):
            fisher_class_rows(weight, variance, wrong, 10)
