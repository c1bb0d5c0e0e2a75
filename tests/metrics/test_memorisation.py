"""Memorisation and membership scores against loops in float64, on items of unequal lengths."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mu.metrics import aggregates
from mu.metrics import memorisation as m
from mu.utils.errors import InputError, UndefinedError

LENGTHS = [7, 1, 12, 3, 5, 2, 9, 4]
rows_of_hits = st.lists(st.lists(st.booleans(), min_size=0, max_size=9), min_size=1, max_size=6)


def padded(rows: list[list[float]], fill: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as `[N, T]`, with rubbish where the mask is False."""
    width = max(1, max(len(row) for row in rows))
    values = torch.full((len(rows), width), fill, dtype=torch.float64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for row_index, row in enumerate(rows):
        values[row_index, : len(row)] = torch.tensor(row, dtype=torch.float64)
        mask[row_index, : len(row)] = True
    return values, mask


def reference_extraction_strength(row: list[bool]) -> float:
    """The released loop, the end of it included."""
    if not row:
        return math.nan
    k = 0
    for k in range(len(row)):  # the loop's last value is the quirk
        if all(row[k:]):
            break
    return 1 - k / len(row)


@settings(max_examples=150, deadline=None)
@given(rows=rows_of_hits, fill=st.booleans())
def test_extraction_strength_and_exact_memorisation(rows: list[list[bool]], fill: bool) -> None:
    """Fails when padding counts as a hit or a miss, or the suffix is taken for a prefix."""
    values, mask = padded([[float(hit) for hit in row] for row in rows], float(fill))
    hits = values.bool()
    assert m.extraction_strength(hits, mask).tolist() == pytest.approx(
        [reference_extraction_strength(row) for row in rows], nan_ok=True
    )
    without = [0.0 if row and not row[-1] else reference_extraction_strength(row) for row in rows]
    assert m.extraction_strength(hits, mask, floor=False).tolist() == pytest.approx(
        without, nan_ok=True
    )
    assert m.exact_memorisation(hits, mask).tolist() == pytest.approx(
        [sum(row) / len(row) if row else math.nan for row in rows], nan_ok=True
    )


def test_the_quirk_of_the_last_token() -> None:
    """An item whose last token is missed gets 1/N, and so does one of which only the last token is
    right.
    """
    hits = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]).bool()
    mask = torch.ones_like(hits)
    assert m.extraction_strength(hits, mask).tolist() == [0.25, 0.25, 0.5, 1]
    assert m.extraction_strength(hits, mask, floor=False).tolist() == [0, 0.25, 0.5, 1]


def drawn() -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
    draw = np.random.default_rng(5)
    return tuple(
        [scale(draw, size).tolist() for size in LENGTHS]  # type: ignore[return-value]
        for scale in (
            lambda d, n: -d.exponential(2, n),
            lambda d, n: -d.exponential(3, n),
            lambda d, n: d.exponential(4, n),
        )
    )


@pytest.mark.parametrize("share", [0.2, 0.4, 1.0])
def test_min_k_and_min_k_plus_plus_against_a_loop(share: float) -> None:
    """Fails when k is rounded instead of cut, the mean goes over N, or the lowest z are those of
    the lowest log-probabilities.
    """
    log_prob, mean, variance = drawn()
    variance[0][2] = 0.0
    (values, mask), (mu, _), (sigma, _) = (
        padded(log_prob, -99),
        padded(mean, 5),
        padded(variance, 7),
    )
    for position, score in enumerate(m.min_k(values, mask, share).tolist()):
        row = log_prob[position]
        k = max(1, int(share * len(row)))
        assert score == pytest.approx(-sum(sorted(row)[:k]) / k)
    for position, score in enumerate(m.min_k_plus_plus(values, mu, sigma, mask, share).tolist()):
        z = [
            (a - b) / math.sqrt(max(c, 1e-6))
            for a, b, c in zip(log_prob[position], mean[position], variance[position], strict=True)
        ]
        k = max(1, int(share * len(z)))
        assert score == pytest.approx(-sum(sorted(z)[:k]) / k)


def test_min_k_takes_float32_and_minus_infinity() -> None:
    values = torch.tensor([[-1.0, -math.inf, -3.0]])
    assert m.min_k(values, torch.ones(1, 3, dtype=torch.bool)).tolist() == [math.inf]
    exact = torch.tensor([[-0.1, -0.2, -7.3]])
    assert m.min_k(exact, torch.ones(1, 3, dtype=torch.bool)).dtype == torch.float64


def test_other_scores() -> None:
    nll = torch.tensor([1.5, 0.25])
    texts = ["The author is Basil.", "é" * 100]
    expected = [
        1.5 / len(zlib.compress(texts[0].encode())),
        0.25 / len(zlib.compress(texts[1].encode())),
    ]
    assert m.zlib_score(nll, texts).tolist() == pytest.approx(expected, rel=1e-14)
    assert m.reference_score(nll, torch.tensor([1.0, 1.0])).tolist() == [0.5, -0.75]
    weights = [torch.tensor([[3.0, 4.0]]), None, torch.tensor([1.0, 2.0, 2.0])]
    assert m.gradient_norm(weights) == pytest.approx((5 + 3) / 2)
    assert m.gradient_norm(weights, p=1) == pytest.approx((7 + 5) / 2)


def test_auc_is_the_references() -> None:
    """1 where forget is far likelier, as roc_auc with the forget set as class 0 and a loss as
    score.
    """
    draw = np.random.default_rng(1)
    forget = draw.exponential(1, 37)
    holdout = draw.exponential(1.5, 54)
    forget[3] = holdout[7]
    labels = [0] * 37 + [1] * 54
    expected = roc_auc_score(labels, np.concatenate([forget, holdout]))
    assert m.membership_auc(torch.tensor(forget), torch.tensor(holdout)) == pytest.approx(
        expected, abs=1e-12
    )
    assert m.membership_auc(torch.zeros(3), torch.ones(4)) == 1


def test_privleak_and_rel_diff() -> None:
    """The signs of MUSE: under-unlearned is negative, down to -100; the AUC of section 4.3's oracle
    on News is .4772 in its own form.
    """
    assert m.privleak(0.5) == 0 and m.privleak(1.0) == -100 and m.privleak(0.0) == 100
    muse = 0.3
    muse_oracle = 0.4772
    assert m.privleak(1 - muse, 1 - muse_oracle) == pytest.approx(
        100 * (muse - muse_oracle) / muse_oracle
    )
    assert m.rel_diff(0.75, 0.5) == pytest.approx(50)
    with pytest.raises(UndefinedError, match="end of the scale"):
        m.privleak(0.5, 1.0)


def test_aggregates() -> None:
    memorised = {
        "extraction_strength": 0.1,
        "exact_memorisation": 0.6,
        "probability": 0.2,
        "truth_ratio": 0.5,
    }
    assert aggregates.memorisation_score(memorised) == pytest.approx(
        4 / (1 / 0.9 + 1 / 0.4 + 1 / 0.8 + 1 / 0.5)
    )
    assert aggregates.memorisation_score([1.0, 0.2]) == 0
    assert aggregates.privacy_score(
        {"loss": 0.5, "zlib": 0.75}, {"loss": 0.5, "zlib": 0.5}
    ) == pytest.approx(2 / (1 + 2))
    assert aggregates.membership_closeness(0.3, 0.3) == 1
    assert (
        aggregates.utility_score(0.3, 0.6) == 0.5
        and aggregates.utility_score(0.7, 0.6) == 1
        and aggregates.utility_score(0.3) == 0.3
    )
    assert aggregates.overall_score(0.5, 1.0, 0.25) == pytest.approx(3 / (2 + 1 + 4))


@settings(max_examples=80, deadline=None)
@given(auc=st.floats(0, 1), oracle=st.floats(0, 1))
def test_closeness_uses_its_whole_scale(auc: float, oracle: float) -> None:
    """1 at the oracle alone, 0 only at the farthest end, the same on both sides."""
    closeness = aggregates.membership_closeness(auc, oracle)
    assert 0 <= closeness <= 1
    assert closeness == pytest.approx(
        aggregates.membership_closeness(1 - auc, 1 - oracle), abs=1e-12
    )
    assert aggregates.membership_closeness(0.0 if oracle > 0.5 else 1.0, oracle) == pytest.approx(
        0, abs=1e-12
    )
    assert (closeness == 1) == (abs(auc - oracle) < 1e-15) or abs(auc - oracle) < 1e-12


def test_closeness_of_released_code_is_divided_by_the_oracles_auc() -> None:
    """Additions E.1: clip(1 - |AUC - AUC of the oracle| / AUC of the oracle, 0, 1)."""
    closeness = aggregates.membership_closeness_reference_code
    assert closeness(0.5, 0.4) == pytest.approx(0.75) and closeness(1.0, 0.4) == 0
    assert aggregates.membership_closeness(0.5, 0.4) == pytest.approx(1 - 0.1 / 0.6)
    assert closeness(0.7, 0.6) == pytest.approx(aggregates.membership_closeness(0.7, 0.6))
    aucs = {"loss": 0.5, "zlib": 0.4}, {"loss": 0.4, "zlib": 0.4}
    assert aggregates.privacy_score(*aucs, closeness) == pytest.approx(2 / (1 / 0.75 + 1))
    with pytest.raises(UndefinedError, match="AUC is 0"):
        closeness(0.5, 0.0)


def test_what_is_refused() -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(UndefinedError, match="item 1 has no token"):
        m.min_k(torch.zeros(2, 3), torch.tensor([[True, True, False], [False, False, False]]))
    with pytest.raises(InputError, match=r"lies in \(0, 1\]"):
        m.min_k(torch.zeros(2, 3), mask, 0.0)
    with pytest.raises(UndefinedError, match="diverged"):
        m.min_k(torch.full((2, 3), math.nan), mask)
    with pytest.raises(InputError, match="same items"):
        m.reference_score(torch.zeros(2), torch.zeros(3))
    with pytest.raises(InputError, match="unfreeze"):
        m.gradient_norm([None])
    with pytest.raises(InputError, match="both of each"):
        aggregates.privacy_score({"loss": 0.5}, {"zlib": 0.5})
    with pytest.raises(InputError, match=r"lies in \[0, 1\]"):
        aggregates.membership_closeness(1.2, 0.5)
    with pytest.raises(InputError, match="text for each"):
        m.zlib_score(torch.zeros(2), ["a"])
