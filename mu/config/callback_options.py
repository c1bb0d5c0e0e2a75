"""Options for a list of components: each component that takes the argument gets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mu.config.argument_types import component_classes, constructor_hints
from mu.config.classes import did_you_mean, find
from mu.config.merge import merge
from mu.config.spec_faults import accepted_names, fits
from mu.utils.errors import InputError


def set_argument(
    entries: list[Any], path: list[str], value: Any, option: str, text: str | None = None
) -> list[Any]:
    """Set an argument of every component of a list that takes it.

    Args:
        entries: specifications, or class paths alone.
        path: name of the argument, then names inside it: `["oracle", "model"]`.
        value: plain data.
        option: option that sets it, for messages.
        text: the value as it was written, which an argument of type text takes.

    Returns:
        The specifications with the argument.

    Raises:
        InputError: when no component takes it.
    """
    name = path[0]
    classes = [find(str(_specification(entry).get("class_path"))) for entry in entries]
    takers = [cls for cls in classes if cls is not None and name in accepted_names(cls)]
    if not takers:
        names = {name for cls in classes if cls is not None for name in accepted_names(cls)}
        components = ", ".join(cls.__name__ for cls in classes if cls is not None)
        hint = did_you_mean(name, names, f"they take {', '.join(sorted(names)) or 'nothing'}.")
        raise InputError(f"none of {components} takes {name!r}, which {option} sets; {hint}")
    return [
        merge(_specification(entry), {"init_args": nested_argument(cls, path, value, text)})
        if cls in takers
        else entry
        for entry, cls in zip(entries, classes, strict=True)
    ]


def _specification(entry: Any) -> Mapping[str, Any]:
    return entry if isinstance(entry, Mapping) else {"class_path": entry}


def nested_argument(
    cls: type, path: list[str], value: Any, text: str | None = None
) -> dict[str, Any]:
    """Arguments of a component with a value at a path; those of a component lie in `init_args`.

    Args:
        cls: class of the component.
        path: name of the argument, then names inside it.
        value: plain data.
        text: the value as it was written, which an argument of type text takes.
    """
    name, *inner = path
    hint = constructor_hints(cls).get(name)
    if not inner:
        is_text = text is not None and not fits(value, hint) and fits(text, hint)
        return {name: text if is_text else value}
    if inner == ["class_path"]:
        return {name: {"class_path": value}}
    if not any(component_classes(hint)):
        for word in reversed(inner):
            value = {word: value}
        return {name: value}
    nested: Any = value
    for word in reversed(inner):
        nested = {"init_args": {word: nested}}
    return {name: nested}
