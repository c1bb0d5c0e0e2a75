"""Checks of a study's entries against the schema, and of what no type says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from mu.bench.study_schema import (
    ComponentEntry,
    Interval,
    StudyFile,
    entries,
    members,
    words,
)
from mu.config.classes import did_you_mean
from mu.utils.errors import InputError
from mu.utils.text_files import check_folder_name, shortened

RESERVED_FOLDERS = ("originals", "search")
"""Folders of a study beside those of its tasks."""
_NO_NULL = ("seeds", "original", "oracle")
"""Entries of a study whose null could mean something else than their default."""
_RECIPE_SENTENCE = (
    "lacks 'recipe', by which original and oracle are trained; a study does without where it says "
    "`original: given` and `oracle: none`."
)


def check_entries(path: Path, raw: Mapping[str, Any]) -> None:
    """Check every entry of a study before anything is built.

    Args:
        path: the study's file, for messages.
        raw: its content, with presets written out.

    Raises:
        InputError: names the first entry of a wrong name, type or range, and what is right.
    """
    for fault in _study_faults(raw):
        separator = " " if fault.startswith(("lacks ", "has the ")) else ": "
        raise InputError(f"{path}{separator}{fault}")


def _study_faults(raw: Mapping[str, Any]) -> Iterator[str]:
    # 1. names and types
    yield from _section_faults(raw, StudyFile, "")
    if not raw.get("recipe") and _trains(raw):
        yield _RECIPE_SENTENCE
    if raw.get("oracle") == {}:
        yield "oracle is {}; name the arguments of the backbone that is the oracle, or none."
    # 2. names that become folders
    yield from _name_faults(raw)
    # 3. methods
    methods_by_key = {"methods": raw["methods"]} | {
        f"tasks.{task}.methods": spec.get("methods") or {} for task, spec in raw["tasks"].items()
    }
    for key, methods in methods_by_key.items():
        for name, spec in methods.items():
            yield from _method_faults(f"{key}.{name}", name, spec, raw["methods"])
    for name, spec in raw["methods"].items():
        if not (spec.get("model") or {}).get("class_path"):
            yield f"methods.{name}.model needs a class_path."


def _trains(raw: Mapping[str, Any]) -> bool:
    """Whether the study trains its original or its oracle."""
    return raw.get("original", "trained") == "trained" or raw.get("oracle", "retrain") == "retrain"


# ---- types ---------------------------------------------------------------------------------------


def _value_faults(value: Any, hint: Any, key: str) -> Iterator[str]:
    """Faults of a value and, where it is a container, of its entries."""
    candidates = [member for member in members(hint) if _admits(value, member)]
    if not candidates:
        yield f"{key} is {_short(value)}; it should be {words(hint)}."
        return
    member = max(candidates, key=lambda candidate: _shared_keys(value, candidate))
    arguments = get_args(member)
    if is_dataclass(member) and isinstance(member, type):
        yield from _section_faults(value, member, key)
    elif get_origin(member) is dict:
        for name, entry in value.items():
            yield from _value_faults(entry, arguments[1], f"{key}.{name}")
    elif get_origin(member) is list:
        for index, entry in enumerate(value):
            yield from _value_faults(entry, arguments[0], f"{key}[{index}]")


def _admits(value: Any, member: Any) -> bool:
    """Whether a value has the shape of a type; entries of containers are not looked at."""
    origin = get_origin(member)
    if origin is Annotated:
        interval = next(note for note in get_args(member) if isinstance(note, Interval))
        return type(value) is int and interval.contains(value)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(member))
    if member is Any:
        return True
    if is_dataclass(member) or origin in (dict, Mapping):
        return isinstance(value, Mapping)
    if origin is list:
        return isinstance(value, list)
    if member is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is member


def _shared_keys(value: Any, member: Any) -> int:
    """Number of a mapping's keys that a section has, by which one of several is chosen."""
    if not (is_dataclass(member) and isinstance(member, type)):
        return 0
    return len({entry.name for entry in entries(member)} & set(value))


def _section_faults(value: Mapping[str, Any], section: type, key: str) -> Iterator[str]:
    """Faults of a mapping that should have the entries of a section; `key` is empty at the top."""
    subject = key or "a study"
    schema = {entry.name: entry for entry in entries(section)}
    prefix = f"{key}." if key else ""
    # 1. entries that the section does not have
    for name in value:
        if name not in schema:
            listing = f"{subject} has {', '.join(sorted(schema))}."
            hint = did_you_mean(str(name), schema, listing)
            yield f"{key + ' ' if key else ''}has the unknown key {_short(name)}; {hint}"
    # 2. entries that it needs
    for name, entry in schema.items():
        if entry.is_required and _is_empty(value.get(name)):
            yield _missing(key, name, value.get(name), section)
    # 3. types; an empty entry counts as left out
    for name, entry in schema.items():
        content = value.get(name)
        if content is not None or (name in value and name in _NO_NULL):
            yield from _value_faults(content, entry.hint, f"{prefix}{name}")


def _is_empty(content: Any) -> bool:
    if isinstance(content, str):
        return not content.strip()
    return content is None or (isinstance(content, Mapping | list) and not content)


def _missing(key: str, name: str, content: Any, section: type) -> str:
    if issubclass(section, ComponentEntry):
        return f"{key} needs a class_path, the path of a class; it is {_short(content)}."
    if not key:
        return f"lacks {name!r}, which every study needs."
    return (
        f"{key} needs {', '.join(entry.name for entry in entries(section) if entry.is_required)}."
    )


# ---- names ---------------------------------------------------------------------------------------


def _name_faults(raw: Mapping[str, Any]) -> Iterator[str]:
    """Faults of names of tasks and methods, which become folders below the study's."""
    for key in ("tasks", "methods"):
        folded = [str(name).casefold() for name in raw[key]]
        for name in raw[key]:
            if folded.count(str(name).casefold()) > 1:
                yield (
                    f"{key}.{name} differs from another name only in capitals, and both are names "
                    "of folders; rename one."
                )
    for name in raw["tasks"]:
        if name in RESERVED_FOLDERS:
            yield (
                f"tasks.{name} is the name of a folder that the study itself writes; rename the "
                "task."
            )


def check_names(path: Path, raw: Mapping[str, Any]) -> None:
    """Check that the names of tasks and methods can be names of folders.

    Raises:
        InputError: names the first one that cannot.
    """
    for key in ("tasks", "methods"):
        content = raw.get(key)
        for name in content if isinstance(content, Mapping) else ():
            check_folder_name(name, f"{path}: the name in {key}")


# ---- methods -------------------------------------------------------------------------------------


def _method_faults(
    key: str, name: str, spec: Mapping[str, Any], methods: Mapping[str, Any]
) -> Iterator[str]:
    if name in ("original", "oracle"):
        yield f"{key} is a reserved name; original and oracle are trained by `recipe`."
    if name not in methods:
        yield f"{key} overrides a method that `methods` does not have."
    # the backbone's weights
    value: Any = spec
    for word in ("model", "init_args", "backbone", "init_args"):
        value = value.get(word) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping) and "weights" in value:
        yield (
            f"{key} gives its backbone weights of its own; every method starts from the original, "
            "whose weights belong to the study's backbone."
        )
    # ranges
    for argument, space in (spec.get("search") or {}).items():
        yield from _range_faults(f"{key}.search.{argument}", space)


def _range_faults(key: str, space: Mapping[str, Any]) -> Iterator[str]:
    if "choices" in space:
        if not space["choices"]:
            yield f"{key}.choices is empty; give at least one value."
        return
    low, high = space["low"], space["high"]
    if low > high:
        yield f"{key} has low {low} above high {high}; exchange the two."
    if space.get("log") and low <= 0:
        yield f"{key}.low is {low}; on a logarithmic scale it should be greater than 0."


def _short(value: Any) -> str:
    return shortened(repr(value))
