"""Selection of classes by number or by name."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from mu.utils.errors import InputError
from tasks.by_class import ByClass

ANIMALS = ("cat", "dog", "café")
LABELS = np.array([0, 1, 1, 2])
INDICES = np.array([4, 5, 6, 7])


def selected(classes, names=ANIMALS, labels: np.ndarray = LABELS) -> list[int]:
    return ByClass(classes).resolve_names(names).select(labels, INDICES, 0).tolist()


@pytest.mark.parametrize(
    ("classes", "indices"),
    [
        ("cat", [4]),
        (["cat", "dog"], [4, 5, 6]),
        (["dog", 0], [4, 5, 6]),
        ("1", [5, 6]),
        (1, [5, 6]),
        (unicodedata.normalize("NFD", "café"), [7]),
    ],
)
def test_classes_are_named_by_number_or_by_name(classes, indices: list[int]) -> None:
    assert selected(classes) == indices


def test_a_name_and_its_number_describe_one_selection() -> None:
    by_name = ByClass(["dog", "cat"]).resolve_names(ANIMALS).describe()
    assert by_name == ByClass([0, 1]).describe() == ByClass(["0", "1"]).describe()


def test_class_names_with_leading_zeros_differ() -> None:
    """Mutation that must fail it: read text of digits as a number before looking up names."""
    folders = ("01", "1")
    assert selected("01", folders) == [4] and selected("1", folders) == [5, 6]


@pytest.mark.parametrize(
    ("classes", "names", "sentence"),
    [
        ("bird", ANIMALS, r"no class bird .* it has 0 \(cat\), 1 \(dog\), 2 \(café\)\."),
        (7, ANIMALS, r"no class 7 .* 0 \(cat\)"),
        ("012", ("0", "1"), r"no class 012 .* it has 0, 1\."),
        ("cat", (), "no names of classes"),
        (1, ("1", "10", "2"), r"the class named '1', which has the number 0.* as text, \"1\""),
        (1, ("01", "02"), r"the class named '01'"),
    ],
)
def test_unknown_and_ambiguous_classes_are_refused(classes, names, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ByClass(classes).resolve_names(names)


def test_labels_of_text_are_compared_as_text() -> None:
    ids = np.array(["1", "01", "1", unicodedata.normalize("NFD", "é")], dtype=object)
    assert selected_text("01", ids) == [5] and selected_text(1, ids) == [4, 6]
    assert selected_text([1, "é"], ids) == [4, 6, 7]


def selected_text(classes, labels: np.ndarray) -> list[int]:
    return ByClass(classes).select(labels, INDICES, 0).tolist()
