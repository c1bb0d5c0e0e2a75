"""The split: an immutable partition with a hash that changes when anything changes that a
comparison rests on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mu.data.split import Split
from mu.utils.errors import InputError

PARTS = {
    "forget": np.array([5, 1]),
    "retain": np.array([2, 9, 4]),
    "validation": np.array([7]),
    "test": np.array([11, 10]),
}


def split(**changes: Any) -> Split:
    arguments: dict[str, Any] = {
        "task": "digits",
        "parts": PARTS,
        "selector": {"selector": "RandomCount", "count": 2},
        "seed": 3,
    }
    return Split(**{**arguments, **changes})


def test_parts_are_sorted_and_cannot_be_changed() -> None:
    """Fails when a split can be edited after its hash was taken."""
    sorted_split = split()
    assert sorted_split.parts["forget"].tolist() == [1, 5]
    assert sorted_split.train.tolist() == [1, 2, 4, 5, 9]
    with pytest.raises(ValueError, match="read-only"):
        sorted_split.parts["forget"][0] = 3
    with pytest.raises(AttributeError):
        sorted_split.seed = 4  # type: ignore[misc]
    source = PARTS["forget"].copy()
    copied = split(parts={**PARTS, "forget": source})
    source[0] = 99
    assert copied.parts["forget"].tolist() == [1, 5]


@pytest.mark.parametrize(
    "change",
    [
        {"task": "digits-2"},
        {"seed": 4},
        {"selector": {"selector": "RandomCount", "count": 3}},
        {"parts": {**PARTS, "forget": np.array([1, 2]), "retain": np.array([5, 9, 4])}},
        {"parts": {**PARTS, "test": np.array([10])}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_hash_changes_with_everything_that_matters(change: dict[str, Any]) -> None:
    """Fails when two splits that differ pass for one."""
    assert split(**change).hash != split().hash
    assert (
        split(note="a note").hash == split(parts=dict(reversed(PARTS.items()))).hash == split().hash
    )


def test_the_training_hash_is_that_of_the_original() -> None:
    """Fails when the original would be trained anew for each forget set, or shared between training
    sets.
    """
    other = split(
        parts={**PARTS, "forget": np.array([2]), "retain": np.array([1, 5, 9, 4])}, seed=8
    )
    assert other.train_hash == split().train_hash
    assert split(parts={**PARTS, "retain": np.array([2, 9])}).train_hash != split().train_hash
    assert split(parts={**PARTS, "validation": np.array([8])}).train_hash != split().train_hash


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"forget": np.array([]), "retain": np.array([1])}, "empty"),
        ({"forget": np.array([1]), "retain": np.array([])}, "whole"),
        ({"forget": np.array([1])}, "retain"),
        ({"forget": np.array([1, 1]), "retain": np.array([2])}, "twice"),
        ({"forget": np.array([1]), "retain": np.array([2]), "test": np.array([1])}, "two parts"),
    ],
    ids=["no forget", "no retain", "missing", "doubled", "overlap"],
)
def test_overlapping_parts_are_refused(parts: dict[str, np.ndarray], word: str) -> None:
    """Fails when a forget sample may also be a test sample, or a part may be empty."""
    with pytest.raises(InputError, match=word):
        split(parts=parts)


def test_a_saved_split_comes_back(tmp_path: Path) -> None:
    """Fails when a field is lost, so that the hash no longer fits."""
    file = tmp_path / "split.json"
    saved = split(note="why")
    saved.save(file)
    again = Split.load(file)
    assert again.hash == saved.hash
    assert again.note == "why"
    assert {name: ids.tolist() for name, ids in again.parts.items()} == {
        name: ids.tolist() for name, ids in saved.parts.items()
    }


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    """Fails when a sample moved by hand goes unnoticed."""
    file = tmp_path / "split.json"
    split().save(file)
    raw = json.loads(file.read_text())
    raw["parts"]["test"].append(12)
    file.write_text(json.dumps(raw))
    with pytest.raises(InputError, match="changed"):
        Split.load(file)
    for broken in ({"task": "digits"}, {**raw, "parts": 3}, [1]):
        file.write_text(json.dumps(broken))
        with pytest.raises(InputError, match="split"):
            Split.load(file)
