"""Types and names of constructor arguments, read from signatures and annotations."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

_PLAIN = (str, bytes, bool, int, float, complex, dict, list, tuple, set, Path, enum.Enum)
"""Types whose values are written out; any other class is a component with a class path."""
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    dict: "a mapping",
    collections.abc.Mapping: "a mapping",
}
_ENTRIES = {int: "whole numbers", float: "numbers", str: "words"}
_LISTS = (list, tuple, set, collections.abc.Sequence, collections.abc.Iterable)


def hints(function: Any) -> dict[str, Any]:
    """Type hints of a function's parameters; those that cannot be resolved are left out."""
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        # a name that is imported for type checkers alone: resolve the others one by one
        namespace = getattr(function, "__globals__", {})
        resolved = {}
        for name, annotation in getattr(function, "__annotations__", {}).items():
            single = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                resolved |= typing.get_type_hints(single, globalns=namespace)
            except (NameError, TypeError, AttributeError):
                continue
        return resolved


def constructor_hints(cls: type) -> dict[str, Any]:
    """Type hints of a constructor's arguments, through `**kwargs` those of its bases too."""
    collected: dict[str, Any] = {}
    for init in _constructors(cls):
        collected = {**hints(init), **collected}
    return collected


def required(cls: type) -> list[str]:
    """Names of the constructor's arguments without default, through `**kwargs` its bases' too."""
    collected: dict[str, bool] = {}
    for init in _constructors(cls):
        for parameter in list(inspect.signature(init).parameters.values())[1:]:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                collected.setdefault(parameter.name, parameter.default is parameter.empty)
    return [name for name, is_required in collected.items() if is_required]


def optional_names(cls: type) -> set[str]:
    """Names of the constructor's arguments that may be null: by their type or their default."""
    hints_by_name = constructor_hints(cls)
    names = {
        name
        for name, hint in hints_by_name.items()
        if hint is Any or any(member in (type(None), Any, object) for member in alternatives(hint))
    }
    for init in _constructors(cls):
        names |= {
            name
            for name, value in inspect.signature(init).parameters.items()
            if value.default is None
        }
    return names


def argument_names(cls: type) -> list[str]:
    """Names of the constructor's arguments, through `**kwargs` those of its bases too."""
    names: dict[str, None] = {}
    for init in _constructors(cls):
        for parameter in list(inspect.signature(init).parameters.values())[1:]:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                names[parameter.name] = None
    return list(names)


def _constructors(cls: type) -> Iterator[Any]:
    """Constructors along the MRO, up to the first without `**kwargs`."""
    for base in cls.__mro__:
        init = vars(base).get("__init__")
        if init is None or base is object:
            continue
        try:
            parameters = inspect.signature(init).parameters.values()
        except (TypeError, ValueError):  # written in C, without a signature
            return
        yield init
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return


def alternatives(hint: Any) -> Iterator[Any]:
    """Members of a union, nested unions flattened; any other hint is its only member."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for member in typing.get_args(hint):
            yield from alternatives(member)
    elif origin is typing.Annotated:
        yield from alternatives(typing.get_args(hint)[0])
    else:
        yield hint


def component_classes(hint: Any) -> Iterator[tuple[type, int]]:
    """Base classes that a class path may be of, with the number of arguments the caller supplies.

    A hint `Callable[[X], C]` takes a subclass of C, whose first argument comes from the caller.
    """
    for member in alternatives(hint):
        if typing.get_origin(member) is collections.abc.Callable:
            parameters, returned = typing.get_args(member) or ([], None)
            supplied = len(parameters) if isinstance(parameters, list) else 0
            for cls, _ in component_classes(returned):
                yield cls, supplied
        elif _is_component(member):
            yield member, 0


def _is_component(hint: Any) -> bool:
    if not inspect.isclass(hint) or hint is type(None) or hint is object:
        return False
    if issubclass(hint, _PLAIN) or hint.__module__ in ("collections.abc", "typing", "builtins"):
        return False
    return hint.__name__ != "Tensor"  # only code can pass a tensor


def entry_hint(hint: Any) -> Any:
    """Type hint of a list's entries; None where the hint takes no list."""
    members = [
        typing.get_args(member)[0]
        for member in alternatives(hint)
        if typing.get_origin(member) in _LISTS and typing.get_args(member)
    ]
    return typing.Union[tuple(members)] if members else None  # noqa: UP007 - made at run time


def in_words(hint: Any) -> str:
    """A type hint as people say it: `a whole number, or null`."""
    words: dict[str, None] = {}
    for member in alternatives(hint):
        if typing.get_origin(member) is typing.Literal:
            words |= {str(value): None for value in typing.get_args(member) if value is not None}
        elif (phrase := _phrase(member)) is not None:
            words[phrase] = None
    *first, last = words or ["of another type"]
    choice = f"{', '.join(first)} or {last}" if first else last
    return choice + (", or null" if type(None) in alternatives(hint) else "")


def _phrase(hint: Any) -> str | None:
    origin = typing.get_origin(hint)
    if origin in _LISTS:
        entries = [entry for entry in typing.get_args(hint)[:1] if entry in _ENTRIES]
        return f"a list of {_ENTRIES[entries[0]]}" if entries else "a list"
    if (origin or hint) in _WORDS:
        return _WORDS[origin or hint]
    classes = [cls for cls, _ in component_classes(hint)]
    return with_article(classes[0].__name__) if classes else None


def with_article(name: str) -> str:
    """A name with its indefinite article: `an Optimizer`."""
    return f"{'an' if re.match('[AEIOU]', name) else 'a'} {name}"


@dataclass(frozen=True)
class Argument:
    """Argument of a constructor or command.

    Attributes:
        key: its name on the command line: `model.optimizer.lr`.
        hint: its type hint; None where it has none.
        owner: name of the class that takes it.
        default: class of its default, for a specification without class path.
    """

    key: str
    hint: Any
    owner: str = ""
    default: type | None = None

    @property
    def name(self) -> str:
        """Last word of the key."""
        return self.key.rpartition(".")[2]

    @cached_property
    def bases(self) -> tuple[type, ...]:
        """Classes that a component must derive from one of; empty where it takes none."""
        return tuple(dict.fromkeys(cls for cls, _ in component_classes(self.hint)))

    @property
    def supplied(self) -> int:
        """Number of the component's positional arguments that the program supplies."""
        return max((count for _, count in component_classes(self.hint)), default=0)

    @property
    def takes_plain_values(self) -> bool:
        """Whether it takes values other than components, lists and null."""
        return any(
            member is not type(None)
            and not any(component_classes(member))
            and entry_hint(member) is None
            for member in alternatives(self.hint)
        )

    def entry(self) -> Argument | None:
        """The same argument with the type of a list's entry; None where it takes no list."""
        hint = entry_hint(self.hint)
        return None if hint is None else replace(self, hint=hint)
