"""Faults in a component's specification, found by walking the types of its constructor.

Called after jsonargparse has refused a specification, to say in one sentence what is wrong with it.
jsonargparse's own error texts are not read: they change from release to release. A value counts as
wrong where a parser with that one argument refuses it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from mu.config import argument_types as types
from mu.config import parser_mode
from mu.config.argument_types import Argument
from mu.config.class_faults import class_at, class_fault, default_classes
from mu.config.classes import did_you_mean, find, subclasses
from mu.config.parser_mode import load_value
from mu.utils.errors import InputError

_CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}


class CommandLineValue(str):
    """Value written on the command line, which the parser reads as YAML."""


def value_fault(value: Any, argument: Argument) -> str | None:
    """A sentence about the first fault in a value; None where no fault was located.

    Args:
        value: plain data: a number, a list, a specification `{class_path, init_args}`, ...
        argument: argument that takes it.
    """
    if argument.hint is None or fits(value, argument.hint):
        return None
    # 1. entries of a list; a component alone may stand for a list of one
    entry = argument.entry()
    if isinstance(value, list) and entry is not None:
        return _first(value_fault(item, entry) for item in value)
    if entry is not None and entry.bases and not argument.bases:
        return value_fault(value, entry)
    # 2. components
    if argument.bases and _is_spec(value, argument):
        return spec_fault(value, argument)
    # 3. plain values
    if isinstance(value, Mapping) and set(value) == {"init_args"}:
        value = value["init_args"]  # some entries of a mapping
        if fits(value, argument.hint):
            return None
    written = repr(plain_data(value) if isinstance(value, Mapping) else value)
    return f"{argument.key} is {written}; it should be {types.in_words(argument.hint)}."


def _is_spec(value: Any, argument: Argument) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and set(value) <= _CLASS_KEYS
    if not isinstance(value, str):
        return False
    return not argument.takes_plain_values or find(value) is not None


def spec_fault(spec: Any, argument: Argument) -> str | None:
    """A sentence about the first fault in the specification of a component.

    Args:
        spec: a class path, or `{class_path: ..., init_args: {...}}`.
        argument: argument that takes it.

    Returns:
        The sentence; None where no fault was located.
    """
    spec = spec if isinstance(spec, Mapping) else {"class_path": spec}
    values = spec.get("init_args") or {}
    path = spec.get("class_path")
    if path is None:
        concrete = [base for base in argument.bases if not inspect.isabstract(base)]
        cls = argument.default or next(iter(concrete), None)
        if cls is None or (not set(values) <= set(accepted_names(cls)) and not argument.default):
            return _no_class_yet(argument, values)
    else:
        cls = class_at(str(path), argument.bases)
        fault = class_fault(str(path), cls, argument)
        if fault is not None or not inspect.isclass(cls):
            return fault
    return _arguments_fault(cls, values, argument)


def _arguments_fault(cls: type, values: Mapping[str, Any], argument: Argument) -> str | None:
    # 1. unknown names
    positional = types.argument_names(cls)[: argument.supplied]
    names = [name for name in accepted_names(cls) if name not in positional]
    for name in values:
        if name not in names:
            choices = [name for name in names if name != "network"]  # only code can pass one
            hint = did_you_mean(name, choices, f"it takes {', '.join(choices)}.")
            return f"{cls.__name__} takes no {name!r}; {hint}"
    # 2. wrong values
    hints = types.constructor_hints(cls)
    defaults = default_classes(cls)
    for name, value in values.items():
        key = f"{argument.key}.{name}"
        inner = Argument(key, hints.get(name), cls.__name__, defaults.get(name))
        fault = value_fault(value, inner)
        if fault is not None:
            return fault
    # 3. missing values
    missing = [name for name in types.required(cls) if name in names and name not in values]
    if "backbone" in missing:
        return (
            f"{cls.__name__} needs a backbone, which a task's file names; add -c "
            "configs/task/NAME.yaml or --model.backbone Classifier."
        )
    if missing:
        needs = " and ".join(missing)
        return f"{cls.__name__} needs {needs}; give --{argument.key}.{missing[0]} VALUE."
    return None


def _no_class_yet(argument: Argument, values: Mapping[str, Any]) -> str:
    children = [child for base in argument.bases for child in subclasses(base)]
    takers = [
        child.__name__
        for child in children
        if not inspect.isabstract(child) and set(values) <= set(types.argument_names(child))
    ]
    example = (takers or [child.__name__ for child in children] or ["CLASS"])[0]
    names = " and ".join(map(repr, values)) or "arguments"
    key = argument.key
    return (
        f"{key} has no class yet that takes {names}; name it first, for example --{key} {example}."
    )


# ---- what the parser takes -----------------------------------------------------------------------


def _parser(hint: Any) -> Any:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False, parser_mode=parser_mode.register())
    parser.add_argument("--value", type=hint)
    return parser


def fits(value: Any, hint: Any) -> bool:
    """Whether the parser takes a value for a type hint."""
    try:
        parser = _parser(hint)
        if isinstance(value, CommandLineValue):
            parser.parse_args([f"--value={value}"])
        else:
            parser.parse_object({"value": plain_data(value)})
    except Exception:  # whatever a parser or a user's class raises: the value is refused
        return False
    return True


def plain_data(value: Any) -> Any:
    """Values of the command line read as YAML, at any depth; other data is copied as it is."""
    if isinstance(value, CommandLineValue):
        try:
            return load_value(str(value))
        except InputError:
            return str(value)
    if isinstance(value, Mapping):
        return {name: plain_data(entry) for name, entry in value.items()}
    return [plain_data(entry) for entry in value] if isinstance(value, list) else value


@cache
def accepted_names(cls: type) -> tuple[str, ...]:
    """Names of the arguments that the parser accepts for a class.

    Arguments that a constructor fixes for its base are left out.
    """
    from jsonargparse import ArgumentParser

    try:
        parser = ArgumentParser(exit_on_error=False)
        keys = parser.add_class_arguments(cls, "component", fail_untyped=False)
    except Exception:  # a class of somebody else's that the parser cannot read
        return tuple(types.argument_names(cls))
    return tuple(dict.fromkeys(key.split(".")[1] for key in keys))


def _first(faults: Iterable[str | None]) -> str | None:
    return next((fault for fault in faults if fault is not None), None)
