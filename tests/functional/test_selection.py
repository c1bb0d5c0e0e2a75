"""Selection of weights by score against the published rules, in Python floats and loops."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mu.functional.selection import (
    floor_share,
    global_top_mask,
    kth_largest,
    magnitude_prune_mask,
    salun_soft_count,
    soft_threshold,
)
from mu.utils.errors import InputError
from tests.support.loops import normal

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
# few distinct values, so that ties and zeros (of both signs) are the rule
values = st.lists(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-40, 3e38]), min_size=1, max_size=30
)


def parts(flat: list[float], cut: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The list as two tensors, the first possibly empty, the second with two dimensions."""
    return {
        "a": torch.tensor(flat[:cut], dtype=dtype),
        "b": torch.tensor(flat[cut:], dtype=dtype).unsqueeze(0),
    }


def joined(mask: dict[str, Tensor]) -> list[bool]:
    return torch.cat([m.flatten() for m in mask.values()]).tolist()


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
    # SalUn's mask (Fan et al., ICLR 2024): rank globally, keep the first
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
    values = (normal(1001) * 50).to(dtype)
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
    # global unstructured magnitude pruning
    weights = parts(flat, len(flat) // 2)
    magnitude = [abs(x) for x in torch.tensor(flat).tolist()]
    mask = magnitude_prune_mask(weights, rate)
    remaining = [m for m, stays in zip(magnitude, joined(mask), strict=True) if stays]
    pruned = [m for m, stays in zip(magnitude, joined(mask), strict=True) if not stays]
    assert len(pruned) == round(rate * len(flat))
    assert not remaining or not pruned or min(remaining) >= max(pruned)
    # a second round counts what is left, and brings nothing back
    again = magnitude_prune_mask(weights, second, previous=mask)
    assert sum(joined(again)) == len(remaining) - round(second * len(remaining))
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
    # proximal operator of tau |.|_1 (SalUn-soft)
    delta = torch.tensor(flat, dtype=torch.float64)
    want = [math.copysign(max(abs(x) - tau, 0.0), x) for x in flat]
    for bound in (tau, torch.tensor(tau)):
        got = soft_threshold(delta, bound)
        torch.testing.assert_close(got, torch.tensor(want).double(), rtol=0, atol=1e-6)
        assert (got.abs() <= delta.abs()).all()


def test_salun_soft_zeroes_exactly_its_count():
    delta = normal(101)
    for step in range(11):
        k = salun_soft_count(0.5, 101, step, 10)
        assert k == (101 * (10 - step)) // 20  # floor(rho n (T - t) / T)
        if k:
            tau, _ = kth_largest([delta.abs()], 101 - k + 1)  # the k-th smallest
            assert int((soft_threshold(delta, tau) == 0).sum()) == k
    with pytest.raises(InputError):
        salun_soft_count(0.5, 10, 5, 4)
