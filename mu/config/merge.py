"""Merging plain configuration, by one rule for the files of the command line and for the layers of
a study. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

_OF_A_CLASS = ("class_path", "init_args", "dict_kwargs")


def merge(*layers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Later layers over earlier ones: mappings merge, a list replaces a list, `key+` appends to
    one; anything else replaces.

    Where a layer names another class, what earlier layers said together with their class goes with
    it: SGD's momentum is not given to Adam. What a layer says without naming a class (`init_args`
    alone) holds for whichever class is named, before it or after it: a task's file may give the
    backbone of a method that another file names. Which layer said what is known within one call, so
    give it all layers.

    A bare name is the class of that name before it (`SSD` after `mu.methods.SSD`), as is the same
    class by another path of its package; a string in the place of a class names one.

    Returns:
        New plain data; no layer is changed.
    """
    said: dict[str, list[Any]] = {}
    for layer in layers:
        for key, value in (layer or {}).items():
            if key.endswith("+"):
                key = key[:-1]
                said[key] = [[*listed(_settled(said.get(key, []))), *listed(value)]]
            else:
                said[key] = _over(said.get(key, []), value)
    return {key: _settled(values) for key, values in said.items()}


def listed(value: Any) -> list[Any]:
    """A list as it is; nothing as no entry, anything else as one."""
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _over(earlier: list[Any], value: Any) -> list[Any]:
    """What holds once `value` is said too: mappings, the oldest first, or one value of another
    kind.
    """
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


def same_class(one: str, other: str) -> bool:
    """Whether two paths name one class, as far as names tell: the same name, in the same package
    where both say one.
    """
    if one.rpartition(".")[2] != other.rpartition(".")[2]:
        return False
    return "." not in one or "." not in other or one.partition(".")[0] == other.partition(".")[0]


def _without_class(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in _OF_A_CLASS}


def _settled(values: list[Any]) -> Any:
    if not values:
        return None
    return merge(*values) if isinstance(values[-1], Mapping) else deepcopy(values[-1])
