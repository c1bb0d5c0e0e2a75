"""Selector of the forget set by class, named by number or by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from unicodedata import normalize

import numpy as np

from mu.utils.errors import InputError
from tasks.selectors import Selector, check_lengths, draw

_LISTED = 20  # classes that a message lists


@dataclass(frozen=True)
class ByClass(Selector):
    """Selector of one class or several, completely or in part.

    Attributes:
        classes: a class, or a list of classes, each by its number or its name (`cat`). Text that
            is the name of a class is that class, even where it looks like a number; names are
            compared in composed Unicode (NFC).
        count: number of samples of each class, drawn by the seed; None selects all.

    >>> ByClass(1).select(np.array([0, 1, 1]), np.array([10, 11, 12]), seed=0)
    array([11, 12])
    >>> ByClass("dog").resolve_names(["cat", "dog"])
    ByClass(classes=[1], count=None)
    """

    classes: str | int | list[str | int]
    count: int | None = None

    def __post_init__(self) -> None:
        if not self._class_list:
            raise InputError("ByClass needs at least one class.")
        if self.count is not None and self.count < 1:
            raise InputError(
                f"ByClass takes a count of at least 1 sample a class, not {self.count}."
            )

    @property
    def _class_list(self) -> list[int | str]:
        """Distinct classes, numbers before names."""
        entries = self.classes if isinstance(self.classes, list | tuple) else [self.classes]
        class_numbers = {entry: _class_number(entry) for entry in entries}
        distinct = {
            _composed(str(entry)) if class_number is None else class_number
            for entry, class_number in class_numbers.items()
        }
        return sorted(distinct, key=lambda label: (isinstance(label, str), label))

    def resolve_names(self, class_names: Sequence[str]) -> ByClass:
        """Selector with class numbers in place of names, see `Selector`.

        Raises:
            InputError: for an unknown name, a number out of range, or a number that is the name of
                a class with another number.
        """
        entries = self.classes if isinstance(self.classes, list | tuple) else [self.classes]
        names = [_composed(name) for name in class_names]
        return replace(self, classes=[_resolved(entry, names) for entry in entries])

    def select(self, labels: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
        """Stable indices of the forget set, see `Selector`; labels may be text."""
        labels, indices = check_lengths(labels, indices)
        if np.issubdtype(labels.dtype, np.floating):
            raise InputError(
                "ByClass needs class labels, and this task has real-valued targets; use "
                "ValueRange or RandomFraction."
            )
        if not np.issubdtype(labels.dtype, np.integer):
            labels = np.array([_composed(str(label)) for label in labels], dtype=object)
        chosen = [
            self._select_class(label, indices[labels == label], labels, seed)
            for label in self._labels_like(labels)
        ]
        return np.sort(np.concatenate(chosen))

    def _labels_like(self, labels: np.ndarray) -> list[int | str]:
        """The classes as text where the labels are text; each name of an id stays as it is."""
        if np.issubdtype(labels.dtype, np.integer):
            return self._class_list
        entries = self.classes if isinstance(self.classes, list | tuple) else [self.classes]
        return sorted({_composed(str(entry)) for entry in entries})

    def _select_class(
        self, label: int | str, members: np.ndarray, labels: np.ndarray, seed: int
    ) -> np.ndarray:
        if not len(members):
            present = np.unique(labels).tolist()
            available = (
                ", ".join(map(str, present))
                if len(present) <= _LISTED
                else f"{len(present)} classes, {present[0]} to {present[-1]}"
            )
            raise InputError(f"there is no class {label} in the training set; it has {available}.")
        if self.count is None:
            return members
        if self.count > len(members):
            raise InputError(
                f"class {label} has {len(members)} training samples, so {self.count} of them "
                "cannot be forgotten."
            )
        return draw(members, self.count, seed, "forget")

    def describe(self) -> dict[str, Any]:
        """Settings of the selector as plain data, see `Selector`."""
        return {"selector": "ByClass", "classes": self._class_list, "count": self.count}


def _class_number(entry: str | int) -> int | None:
    """The number that an entry is or spells as numbers are written (`3`, not `03`), else None."""
    if not isinstance(entry, str):
        return int(entry)
    text = entry.strip()
    return int(text) if text.isascii() and text.isdigit() and str(int(text)) == text else None


def _composed(text: str) -> str:
    """Text in composed Unicode (NFC), without white space around it."""
    return normalize("NFC", text).strip()


def _resolved(entry: str | int, names: Sequence[str]) -> int:
    """Number of a class that is named by its number or its name."""
    if isinstance(entry, str) and _composed(entry) in names:
        return names.index(_composed(entry))
    class_number = _class_number(entry)
    # names such as 01 and 1, which YAML reads as the same number
    namesakes = [
        index
        for index, name in enumerate(names)
        if class_number is not None
        and name.isascii()
        and name.isdigit()
        and int(name) == class_number
    ]
    if namesakes and class_number not in namesakes:
        name = names[namesakes[0]]
        raise InputError(
            f"class {class_number} may be the class named {name!r}, "
            f"which has the number {namesakes[0]}, "
            f'or the class with the number {class_number}; give the name as text, "{name}".'
        )
    if class_number is None or (names and not 0 <= class_number < len(names)):
        available = ", ".join(
            name if name == str(index) else f"{index} ({name})"
            for index, name in enumerate(names[:_LISTED])
        ) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
        raise InputError(
            f"there is no class {entry} in the training set; it has "
            f"{available or 'numbers alone, no names of classes'}."
        )
    return class_number
