"""Checks of the types and ranges of a study's entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mu.utils.errors import InputError
from mu.utils.text_files import shortened

_MAPPING = "a mapping"
_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "name": (str, "text"),
    "output": (str, "the path of a folder"),
    "title": (str, "text"),
    "trainer": (Mapping, "a mapping of the Trainer's arguments"),
    "search": (Mapping, _MAPPING),
    "gap": (Mapping, "a class: {class_path: ..., init_args: {...}}"),
    "recipe": (Mapping, "a mapping with model and trainer"),
}
"""Type of each entry that may be absent, with its name in messages."""
RECIPE = ("model", "trainer")
LARGEST_SEED = 2**32 - 1


def check_types(path: Path, raw: Mapping[str, Any]) -> None:
    """Check the entries of a study that may be absent.

    Args:
        path: the study's file, for messages.
        raw: its content.

    Raises:
        InputError: names the first entry of a wrong type or range, and what is right.
    """
    fault = next(_faults(raw), None)
    if fault is not None:
        raise InputError(f"{path}: {fault}")


def check_method(where: str, spec: Mapping[str, Any]) -> None:
    """Check the entries of a method, or of its override on a task.

    Args:
        where: file and place, for messages.
        spec: the entries.

    Raises:
        InputError: names the first entry of a wrong type or range.
    """
    fault = next(_method_faults(spec), None)
    if fault is not None:
        raise InputError(f"{where}.{fault}")


def _faults(raw: Mapping[str, Any]) -> Iterator[str]:
    for key, (expected, words) in _TYPES.items():
        value = raw.get(key)
        if value is not None and not isinstance(value, expected):
            yield f"{key} is {_short(value)}; it should be {words}."
    # 1. numbers
    threads = raw.get("threads")
    if threads is not None and not (type(threads) is int and 1 <= threads <= 1024):
        yield f"threads is {_short(threads)}; it should be a whole number from 1 to 1024."
    # 2. specifications
    yield from _class_faults("backbone", raw.get("backbone"))
    if raw.get("gap"):
        yield from _class_faults("gap", raw["gap"])
    for name, task in _items(raw.get("tasks")):
        if isinstance(task, Mapping):
            yield from _class_faults(f"tasks.{name}", task)
    for index, suite in enumerate(raw.get("suites") or []):
        yield from _suite_faults(f"suites[{index}]", suite)
    for name, task in _items(raw.get("tasks")):
        suites = task.get("suites") if isinstance(task, Mapping) else None
        for index, suite in enumerate(suites if isinstance(suites, list) else []):
            yield from _suite_faults(f"tasks.{name}.suites[{index}]", suite)
    # 3. recipe
    for key, value in _items(raw.get("recipe")):
        if key not in RECIPE:
            yield f"recipe has the unknown key {key!r}; it has {', '.join(RECIPE)}."
        elif value is not None and not isinstance(value, Mapping):
            yield f"recipe.{key} is {_short(value)}; it should be {_MAPPING}."


def _suite_faults(key: str, suite: Any) -> Iterator[str]:
    if isinstance(suite, str):
        return
    if not isinstance(suite, Mapping):
        yield f"{key} is {_short(suite)}; it should be a class path, or a class with init_args."
    else:
        yield from _class_faults(key, suite)


def _class_faults(key: str, spec: Any) -> Iterator[str]:
    if not isinstance(spec, Mapping):
        return
    path = spec.get("class_path")
    if not isinstance(path, str) or not path.strip():
        yield f"{key} needs a class_path, the path of a class; it is {_short(path)}."
    arguments = spec.get("init_args")
    if arguments is not None and not isinstance(arguments, Mapping):
        yield f"{key}.init_args is {_short(arguments)}; it should be {_MAPPING}."


def _method_faults(spec: Mapping[str, Any]) -> Iterator[str]:
    for key in ("model", "trainer", "search", "found"):
        value = spec.get(key)
        if value is not None and not isinstance(value, Mapping):
            yield f"{key} is {_short(value)}; it should be {_MAPPING}."
    model = spec.get("model")
    if isinstance(model, Mapping) and "class_path" in model:
        yield from _class_faults("model", model)
    skip = spec.get("skip")
    if skip is not None and not isinstance(skip, str):
        yield f"skip is {_short(skip)}; it should be the reason, as text."
    size = spec.get("forget_batch_size")
    if size is not None and not (type(size) is int and size >= 1):
        yield f"forget_batch_size is {_short(size)}; it should be a whole number of at least 1."


def _items(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _short(value: Any) -> str:
    return shortened(repr(value))
