"""Merging of plain configuration: files of the command line, layers of a study."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

_CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


def merge(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge layers of configuration, later over earlier.

    Mappings merge, a list replaces a list, `key+` appends to one; any other value replaces.

    A layer that names another class drops the arguments of earlier layers that named their class:
    Adam does not get SGD's momentum. Arguments of a layer without class (`init_args` alone) hold
    for any class, named before or after: a task's file may give the backbone of a method that
    another file names. All layers must be merged in one call, which knows their origin.

    A bare name stands for the same class as a path before it (`SSD` after `mu.methods.SSD`), and so
    does another path in the same package; a string in place of a specification names a class.

    Args:
        layers: plain data, the first below the others; None is an empty layer.

    >>> merge({"lr": 0.1, "tags": ["a"]}, {"lr": 0.2, "tags+": ["b"]})
    {'lr': 0.2, 'tags': ['a', 'b']}
    >>> sgd = {"optimizer": {"class_path": "SGD", "init_args": {"momentum": 0.9}}}
    >>> merge(sgd, {"optimizer": "Adam"})
    {'optimizer': {'class_path': 'Adam'}}

    Returns:
        New plain data; no layer is changed.
    """
    entries: dict[str, list[Any]] = {}
    for layer in layers:
        for key, value in (layer or {}).items():
            if isinstance(key, str) and key.endswith("+"):
                key = key[:-1]
                entries[key] = [[*listed(_merged(entries.get(key, []))), *listed(value)]]
            else:
                entries[key] = _over(entries.get(key, []), value)
    return {key: _merged(values) for key, values in entries.items()}


def listed(value: Any) -> list[Any]:
    """A list of a value: a list itself, None as no entry, anything else as one entry."""
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _over(earlier: list[Any], value: Any) -> list[Any]:
    """Values of a key after another layer: mappings, the oldest first, or one other value."""
    before = [entry for entry in earlier if isinstance(entry, Mapping)]
    if isinstance(value, str) and any(
        "class_path" in entry or "init_args" in entry for entry in before
    ):
        value = {"class_path": value}
    if not isinstance(value, Mapping):
        return [value]
    old = next(
        (str(entry["class_path"]) for entry in reversed(before) if entry.get("class_path")), ""
    )
    new = str(value.get("class_path") or "")
    if old and new and not same_class(old, new):
        before = [_without_class(entry) if entry.get("class_path") else entry for entry in before]
    elif old and new and "." not in new:
        value = {**value, "class_path": old}
    return [*before, value]


def same_class(first: str, second: str) -> bool:
    """Whether two class paths have the same class name and, where both have one, package."""
    if first.rpartition(".")[2] != second.rpartition(".")[2]:
        return False
    if "." not in first or "." not in second:
        return True
    return first.partition(".")[0] == second.partition(".")[0]


def _without_class(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in _CLASS_KEYS}


def _merged(values: list[Any]) -> Any:
    if not values:
        return None
    return merge(*values) if isinstance(values[-1], Mapping) else deepcopy(values[-1])
