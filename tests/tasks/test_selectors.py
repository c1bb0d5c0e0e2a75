"""Selectors: distinct samples, a pure function of seed and index, and one plain sentence for bad
input.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mu.utils.errors import InputError
from tasks.by_class import ByClass
from tasks.selectors import (
    IndexFile,
    NoisyLabels,
    RandomCount,
    RandomFraction,
    Selector,
    ValueRange,
    draw,
    portion,
)

LABELS = np.arange(60) % 4
INDICES = np.random.default_rng(0).permutation(200)[:60]  # neither sorted nor gapless
CIFAR10N = Path("../shared/data/cifar10n/cifar10n_labels.npz")


def chosen_by_hand(selector: Selector) -> np.ndarray:
    return selector.select(LABELS, INDICES, 0)


@given(st.integers(1, 40), st.integers(0, 2**31), st.data())
@settings(max_examples=40, deadline=None)
def test_a_draw_is_distinct_and_does_not_depend_on_the_order(size: int, seed: int, drawn) -> None:
    indices = np.array(
        drawn.draw(st.lists(st.integers(0, 10**9), min_size=size, max_size=size, unique=True))
    )
    count = drawn.draw(st.integers(0, size))
    once = draw(indices, count, seed, "forget")
    assert len(once) == count == len(np.unique(once)) and np.isin(once, indices).all()
    assert np.array_equal(once, draw(indices[::-1], count, seed, "forget"))
    assert np.isin(
        draw(indices, count // 2, seed, "forget"), once
    ).all()  # smaller sets lie inside larger ones


def test_draws_are_uniform_and_differ_between_seeds_and_purposes() -> None:
    hits = np.zeros(50)
    for seed in range(2000):
        hits[draw(np.arange(50), 10, seed, "forget")] += 1
    assert hits.min() > 330 and hits.max() < 470  # 400 expected, standard deviation 18
    assert not np.array_equal(
        draw(np.arange(50), 10, 0, "forget"), draw(np.arange(50), 10, 0, "validation")
    )


@pytest.mark.parametrize(
    ("size", "fraction", "count"),
    [(45000, 0.1, 4500), (100, 0.29, 29), (5, 0.5, 3), (5, 0.3, 2), (10, 0.04, 0)],
)
def test_a_portion_is_the_nearest_number(size: int, fraction: float, count: int) -> None:
    assert portion(size, fraction) == count


@pytest.mark.parametrize(
    "selector",
    [ByClass(2), ByClass([0, 3]), ByClass([1, 2], count=4), RandomFraction(0.3), RandomCount(7)],
    ids=lambda s: str(s.describe()),
)
def test_a_selection_is_sorted_distinct_and_the_same_again(selector: Selector) -> None:
    chosen = chosen_by_hand(selector)
    assert np.array_equal(chosen, np.unique(chosen)) and np.isin(chosen, INDICES).all()
    shuffled = np.random.default_rng(1).permutation(60)
    assert np.array_equal(chosen, selector.select(LABELS[shuffled], INDICES[shuffled], 0))
    json.dumps(selector.describe(), allow_nan=False)


def test_by_class_takes_the_class_or_a_part_of_each() -> None:
    assert np.array_equal(chosen_by_hand(ByClass(2)), np.sort(INDICES[LABELS == 2]))
    assert np.array_equal(
        chosen_by_hand(ByClass([3, 0])), np.sort(INDICES[np.isin(LABELS, [0, 3])])
    )
    part = chosen_by_hand(ByClass([1, 2], count=4))
    selected_labels = LABELS[np.isin(INDICES, part)]
    assert np.bincount(selected_labels).tolist() == [0, 4, 4]
    assert not np.array_equal(part, ByClass([1, 2], count=4).select(LABELS, INDICES, 1))


def test_equal_choices_are_described_equally() -> None:
    assert ByClass([3]).describe() == ByClass(3).describe() == ByClass([3, 3]).describe()
    assert ByClass(3).describe() != ByClass(3, count=5).describe()


def test_random_selectors_take_their_number() -> None:
    assert len(chosen_by_hand(RandomFraction(0.3))) == 18
    assert len(chosen_by_hand(RandomCount(7))) == 7


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: chosen_by_hand(ByClass(9)), "no class 9 in the training set; it has 0, 1, 2, 3"),
        (lambda: ByClass(1).select(np.arange(60.0), INDICES, 0), "real-valued"),
        (lambda: chosen_by_hand(ByClass(1, count=99)), "class 1 has 15 training samples"),
        (lambda: ByClass([]), "at least one class"),
        (lambda: ByClass(1, count=0), "at least 1"),
        (lambda: RandomFraction(0.0), "between 0 and 1"),
        (lambda: RandomFraction(10), "between 0 and 1"),
        (lambda: RandomFraction(math.nan), "between 0 and 1"),
        (lambda: RandomCount(0), "at least 1"),
        (lambda: chosen_by_hand(RandomCount(61)), "60 samples"),
        (lambda: ValueRange(2, 1), "low <= high"),
        (lambda: ByClass(1).select(LABELS[:-1], INDICES, 0), "differ in length"),
    ],
)
def test_bad_selectors_are_refused_in_one_sentence(make, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        make()
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_an_index_file_may_be_text_npy_or_json(tmp_path: Path) -> None:
    expected = [int(i) for i in INDICES[[5, 0, 9]]]
    (tmp_path / "a.txt").write_text("# to be forgotten\n" + "\n".join(map(str, expected)) + "\n\n")
    (tmp_path / "a.json").write_text(json.dumps(expected))
    np.save(tmp_path / "a.npy", np.array(expected, dtype=np.int32))
    selectors = [IndexFile(tmp_path / name) for name in ("a.txt", "a.json", "a.npy")]
    for selector in selectors:
        assert chosen_by_hand(selector).tolist() == sorted(expected)
        assert selector.describe() == selectors[0].describe() and str(tmp_path) not in str(
            selector.describe()
        )
    (tmp_path / "b.txt").write_text(str(expected[0]))
    assert IndexFile(tmp_path / "b.txt").describe() != selectors[0].describe()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", f"{INDICES[0]}\n{INDICES[0]}\n", "2 times"),
        ("a.txt", "100000\n", "no training sample"),
        ("a.txt", "-1\n", "no training sample"),
        ("a.txt", "one\n", "not a list of sample indices"),
        ("a.txt", "1.5\n", "not a list of sample indices"),
        ("a.txt", b"\xff\xfe", "not a list of sample indices"),
        ("a.txt", "9" * 30, "not a list of sample indices"),
        ("a.json", "[1, 2", "not a list of sample indices"),
        ("a.json", "[[1], [2]]", "flat list"),
        ("a.json", "[1, true]", "flat list"),
        ("a.json", '{"forget": [1]}', "flat list"),
        ("a.npy", b"not an array", "not a list of sample indices"),
        ("a.npy", b"", "not a list of sample indices"),
    ],
)
def test_bad_index_files_are_refused(
    tmp_path: Path, name: str, content: str | bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=sentence):
        chosen_by_hand(IndexFile(tmp_path / name))


@pytest.mark.parametrize("values", [np.zeros((2, 2), dtype=int), np.array([1.0, 2.0])])
def test_an_array_of_another_kind_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(InputError, match="flat list of whole numbers"):
        chosen_by_hand(IndexFile(tmp_path / "a.npy"))


def test_a_pickled_array_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1, "x", None], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"allow_pickle=False|not a list"):
        chosen_by_hand(IndexFile(tmp_path / "a.npy"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for selector in (IndexFile(tmp_path / "none.txt"), NoisyLabels(tmp_path / "none.npz", "noisy")):
        with pytest.raises(InputError, match=r"there is no file .*none"):
            chosen_by_hand(selector)


def noisy_file(folder: Path, **columns: np.ndarray) -> Path:
    clean = np.zeros(200, dtype=np.uint8)
    clean[INDICES] = LABELS
    noisy = clean.copy()
    noisy[INDICES[:8]] = (noisy[INDICES[:8]] + 1) % 4
    np.savez(folder / "labels.npz", **{"clean_label": clean, "noisy": noisy, **columns})
    return folder / "labels.npz"


def test_noisy_labels_are_where_the_columns_differ(tmp_path: Path) -> None:
    selector = NoisyLabels(noisy_file(tmp_path), "noisy")
    assert np.array_equal(chosen_by_hand(selector), np.sort(INDICES[:8]))
    noisy = selector.noisy_labels(INDICES)
    assert noisy.dtype == np.int64
    assert np.array_equal(noisy[:8], (LABELS[:8] + 1) % 4) and np.array_equal(noisy[8:], LABELS[8:])
    # trained on the noisy ones
    assert np.array_equal(selector.select(noisy, INDICES, 0), np.sort(INDICES[:8]))
    assert str(tmp_path) not in str(selector.describe())


@pytest.mark.parametrize(
    ("columns", "column", "sentence"),
    [
        ({}, "worse", "no column `worse`; it has clean_label, noisy"),
        ({"noisy": np.zeros(199, dtype=int)}, "noisy", "differ in length"),
        ({"noisy": np.zeros(200)}, "noisy", "whole numbers"),
        (
            {"noisy": np.zeros(50, dtype=int), "clean_label": np.zeros(50, dtype=int)},
            "noisy",
            "labels for 50 samples",
        ),
        (
            {"clean_label": np.full(200, 7), "noisy": np.full(200, 6)},
            "noisy",
            "made for other data",
        ),
        ({"noisy": np.array([None] * 200)}, "noisy", "not an .npz file of label columns"),
    ],
)
def test_bad_label_files_are_refused(
    tmp_path: Path, columns: dict, column: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        chosen_by_hand(NoisyLabels(noisy_file(tmp_path, **columns), column))


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut off"])
def test_a_broken_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"not an \.npz"):
        chosen_by_hand(NoisyLabels(tmp_path / "a.npz", "noisy"))
    np.save(tmp_path / "a.npy", np.arange(3))
    with pytest.raises(InputError, match=r"not an \.npz"):
        chosen_by_hand(NoisyLabels(tmp_path / "a.npy", "noisy"))


def test_a_value_range_has_both_its_ends() -> None:
    values = np.array([1.0, 2.0, 2.5, 3.0, 4.0], dtype=np.float32)
    assert ValueRange(2, 3).select(values, np.arange(5), 0).tolist() == [1, 2, 3]
    assert ValueRange(-math.inf, 2).select(values, np.arange(5), 0).tolist() == [0, 1]
    json.dumps(ValueRange(-math.inf, 2).describe(), allow_nan=False)


@pytest.mark.data
def test_the_noise_rates_of_cifar10n_are_the_published_ones() -> None:
    """Wei et al., ICLR 2022: 9.03 (file: 9.01), 40.21, 17.23, 18.12, 17.64 % wrong. Needs
    ../shared/data/cifar10n.
    """
    if not CIFAR10N.exists():
        pytest.skip(f"{CIFAR10N} is not here")
    labels = np.load(CIFAR10N)["clean_label"].astype(np.int64)
    rates = {
        "aggre_label": 9.01,
        "worse_label": 40.21,
        "random_label1": 17.23,
        "random_label2": 18.12,
        "random_label3": 17.64,
    }
    for column, percent in rates.items():
        forgotten = NoisyLabels(CIFAR10N, column).select(labels, np.arange(50000), 0)
        assert 100 * len(forgotten) / 50000 == pytest.approx(percent, abs=0.005)
