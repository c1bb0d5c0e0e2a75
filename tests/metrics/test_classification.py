"""Per-example quantities against their equations in 60-digit decimals, one example and one class at
a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, getcontext, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mu import metrics
from mu.utils.errors import InputError, RunError

getcontext().prec = 60
SHAPES = [(1, 2), (7, 3), (13, 10), (5, 101)]


def example(count: int, classes: int, scale: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed + 1000 * count + classes)
    label = torch.randint(classes, (count,), generator=generator)
    return scale * torch.randn(count, classes, generator=generator, dtype=torch.float64), label


def probabilities(row: Tensor) -> list[Decimal]:
    weights = [Decimal(value).exp() for value in row.tolist()]
    return [weight / sum(weights) for weight in weights]


def entropy(p: list[Decimal], y: int) -> Decimal:
    return sum((-q * q.ln() for q in p if q > 0), Decimal(0))


def modified_entropy(p: list[Decimal], y: int) -> Decimal:
    wrong = sum((-q * (1 - q).ln() for j, q in enumerate(p) if j != y), Decimal(0))
    return wrong - (1 - p[y]) * p[y].ln()


def scaled_confidence(p: list[Decimal], y: int) -> Decimal:
    return p[y].ln() - (1 - p[y]).ln()


STATEMENTS: dict[str, Callable[[list[Decimal], int], Decimal]] = {
    "confidence": lambda p, y: p[y],
    "nll": lambda p, y: -p[y].ln(),
    "entropy": entropy,
    "modified_entropy": modified_entropy,
    "margin": scaled_confidence,
    "logit_scaled_confidence": scaled_confidence,
}


def compute(name: str, logits: Tensor, label: Tensor) -> Tensor:
    return metrics.entropy(logits) if name == "entropy" else getattr(metrics, name)(logits, label)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0])
@pytest.mark.parametrize("name", STATEMENTS)
def test_metrics_equal_values_by_hand(name: str, scale: float, shape: tuple[int, int]) -> None:
    logits, label = example(*shape, scale=scale)
    stated = [
        float(STATEMENTS[name](probabilities(row), y))
        for row, y in zip(logits, label.tolist(), strict=True)
    ]
    value = compute(name, logits, label)
    assert value.dtype == torch.float64 and value.shape == label.shape
    cancels = STATEMENTS[name] is scaled_confidence  # a difference that may be near 0
    torch.testing.assert_close(
        value,
        torch.tensor(stated, dtype=torch.float64),
        rtol=1e-11,
        atol=1e-14 if cancels else 1e-300,
    )


@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("gap", [40.0, 100.0, 700.0, 800.0])
def test_saturated_predictions_keep_their_digits(name: str, gap: float) -> None:
    """Computing 1 - p from a p that rounds to 1 fails this from a gap of 40 on."""
    logits = torch.tensor([[gap, 0.0, 1.0], [0.0, gap, 1.0]], dtype=torch.float64)
    label = torch.tensor([0, 0])
    with localcontext() as context:
        context.prec = 800
        stated = [
            float(STATEMENTS[name](probabilities(row), y))
            for row, y in zip(logits, label.tolist(), strict=True)
        ]
    torch.testing.assert_close(
        compute(name, logits, label),
        torch.tensor(stated, dtype=torch.float64),
        rtol=1e-11,
        atol=1e-300,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_logits_are_widened_first(dtype: torch.dtype) -> None:
    logits, label = example(9, 5)
    logits = logits.to(dtype)
    for name in STATEMENTS:
        assert torch.equal(compute(name, logits, label), compute(name, logits.double(), label))


@pytest.mark.parametrize("shape", SHAPES)
def test_accuracy_counts(shape: tuple[int, int]) -> None:
    logits, label = example(*shape)
    right = [
        int(max(range(shape[1]), key=row.__getitem__) == y)
        for row, y in zip(logits.tolist(), label.tolist(), strict=True)
    ]
    assert metrics.correctness(logits, label).tolist() == right
    assert metrics.accuracy(logits, label) == pytest.approx(
        100 * sum(right) / len(right), abs=1e-12
    )
    assert metrics.unlearning_accuracy(logits, label) == pytest.approx(
        100 - 100 * sum(right) / len(right), abs=1e-12
    )


def test_hard_margin() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.5], [1.0, 4.0, 2.5]])
    assert metrics.hard_margin(logits, torch.tensor([1, 2])).tolist() == [1.5, -1.5]


def test_modified_entropy_tells_right_from_wrong_where_entropy_cannot() -> None:
    logits = torch.tensor([[20.0, 0.0], [20.0, 0.0]])
    label = torch.tensor([0, 1])
    assert metrics.entropy(logits)[0] == metrics.entropy(logits)[1]
    right, wrong = metrics.modified_entropy(logits, label).tolist()
    assert 0 <= right < 1e-15 and wrong > 20


def reference(logits: Tensor, label: Tensor) -> list[float]:
    """Every row: classes present anywhere in the labels have p and 1 - p exchanged, and all
    logarithms are of p.
    """
    stated = []
    present = set(label.tolist())
    for row in logits:
        p = probabilities(row)
        stated.append(
            float(
                sum((-(1 - q if j in present else q) * q.ln() for j, q in enumerate(p)), Decimal(0))
            )
        )
    return stated


def test_the_references_modified_entropy_ignores_each_rows_own_label() -> None:
    logits, _ = example(12, 4)
    labels = torch.arange(12) % 4
    some = torch.arange(12) % 2
    for label in (labels, some):
        torch.testing.assert_close(
            metrics.modified_entropy_reference(logits, label),
            torch.tensor(reference(logits, label), dtype=torch.float64),
            rtol=1e-12,
            atol=0.0,
        )
    # all classes present: -sum over j of (1 - p_j) log p_j for every row, whatever its label
    p = logits.softmax(dim=1)
    torch.testing.assert_close(
        metrics.modified_entropy_reference(logits, labels), -((1 - p) * p.log()).sum(dim=1)
    )
    shuffled = labels.flip(0)
    assert torch.equal(
        metrics.modified_entropy_reference(logits, labels),
        metrics.modified_entropy_reference(logits, shuffled),
    )
    assert not torch.allclose(
        metrics.modified_entropy(logits, labels), metrics.modified_entropy(logits, shuffled)
    )


def test_the_reference_floors_an_underflowed_probability() -> None:
    logits = torch.tensor([[0.0, -200.0]])
    label = torch.tensor([1])
    assert logits.softmax(dim=1)[0, 1] == 0
    assert metrics.modified_entropy_reference(logits, label).item() == pytest.approx(
        -math.log(1e-30)
    )


@given(
    st.lists(st.lists(st.floats(-50, 50), min_size=4, max_size=4), min_size=1, max_size=6),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_metrics_stay_in_their_bounds(rows: list[list[float]], y: int) -> None:
    logits = torch.tensor(rows, dtype=torch.float64)
    label = torch.full((len(rows),), y)
    entropies = metrics.entropy(logits)
    assert bool((entropies >= 0).all()) and bool((entropies <= math.log(4) + 1e-12).all())
    assert bool((metrics.modified_entropy(logits, label) >= 0).all())
    p = metrics.confidence(logits, label)
    assert bool(((p >= 0) & (p <= 1)).all())
    shifted = metrics.modified_entropy(logits + 7.5, label)
    torch.testing.assert_close(
        shifted, metrics.modified_entropy(logits, label), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    ("logits", "label"),
    [
        (torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 3), torch.tensor([0, 3])),
        (torch.zeros(2, 3), torch.tensor([0, -1])),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_unusable_input_is_refused(logits: Tensor, label: Tensor) -> None:
    with pytest.raises(InputError):
        metrics.accuracy(logits, label)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_model_has_no_accuracy(value: float) -> None:
    with pytest.raises(RunError, match="diverged"):
        metrics.accuracy(torch.tensor([[0.0, value]]), torch.tensor([0]))
