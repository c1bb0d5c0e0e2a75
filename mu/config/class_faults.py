"""Faults in the class path of a component, located in source files before anything is imported."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mu.config import argument_types as types
from mu.config.argument_types import Argument
from mu.config.classes import components, did_you_mean, find, subclasses
from mu.utils.class_source import may_import, module_file
from mu.utils.errors import InputError

NOUNS = {
    "model": "method",
    "data": "task",
    "backbone": "backbone",
    "callbacks": "callback",
    "mask": "mask",
    "selector": "selector",
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "substitute": "substitute",
    "plan": "data plan",
    "augmentation": "augmentation",
}
"""What an argument holds, in words."""
CATEGORIES = {"model": "methods", "data": "tasks", "backbone": "backbones", "mask": "masks"}
"""Category of `mu list` that lists an argument's choices."""


def class_at(path: str, bases: tuple[type, ...]) -> Any:
    """The class (or function) of a path, or the subclass of a bare name; None where there is none.

    Of classes with the same bare name, one that fits comes first.
    """
    if "." not in path:
        candidates = [cls for base in bases for cls in (base, *subclasses(base))]
        return next((cls for cls in candidates if cls.__name__ == path), None) or find(path)
    if not may_import(path, bases, functions=not bases):
        return None
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name, None)
    except (Exception, SystemExit):  # `_import_fault` says what is wrong with the module
        return None


def class_fault(path: str, cls: Any, argument: Argument) -> str | None:
    """A sentence about a class path that names no class, or not one of the right base."""
    if cls is None:
        fault = _source_fault(path, argument) or _import_fault(path)
        return fault or _unknown_class(path, argument)
    if not inspect.isclass(cls):
        return _misfit(path, argument) if argument.bases else None
    if not issubclass(cls, argument.bases):
        return _misfit(path, argument)
    if inspect.isabstract(cls):
        names = [child.__name__ for child in subclasses(cls) if not inspect.isabstract(child)]
        choices = " or ".join(names[:4]) or "one of its subclasses"
        return f"{path} is a base of others and cannot be used itself; choose {choices}."
    return None


def _source_fault(path: str, argument: Argument) -> str | None:
    """A sentence about a module whose source holds no such class; None where it may be imported."""
    bases = argument.bases
    if "." not in path or may_import(path, bases, functions=not bases):
        return None
    file = module_file(path)
    if file is not None and file.fault:
        return f"{file.path.name} cannot be imported: {file.fault}."
    packages = sorted(file.imported_packages) if file is not None and file.from_user else []
    missing = next((name for name in packages if name and not _exists(name)), None)
    if missing:
        return (
            f"{path!r} cannot be imported: there is no module {missing!r}; install it or "
            "correct the import."
        )
    if file is not None and bases and may_import(path, functions=True):
        return _misfit(path, argument)
    return _missing_module(path) or _unknown_class(path, argument)


def _exists(package: str) -> bool:
    """Whether an import would find a package, which is not imported for that."""
    try:
        return find_spec(package) is not None or module_file(f"{package}.X") is not None
    except (ImportError, ValueError):
        return True


def _missing_module(path: str) -> str | None:
    root = path.partition(".")[0]
    if module_file(path) is not None:
        return None
    return (
        (
            f"there is no module {root!r} for {path!r}; a file {root}.py is looked for in the "
            "working directory."
        )
        if module_file(f"{root}.X") is None
        else None
    )


def _import_fault(path: str) -> str | None:
    """A sentence about a module that cannot be imported; None where it can."""
    module = path.rpartition(".")[0]
    if not module:
        return None
    root = module.partition(".")[0]
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name == root:
            return (
                f"there is no module {root!r} for {path!r}; a file {root}.py is looked for in the "
                "working directory."
            )
        return (
            f"{path!r} cannot be imported: there is no module {error.name!r}; install it or "
            "correct the import."
        )
    except SyntaxError as error:
        file = Path(error.filename or module).name
        return f"{file} cannot be imported: {error.msg} in line {error.lineno}."
    except (Exception, SystemExit) as error:  # the module is the user's and may raise anything
        words = " ".join(str(error).split()).rstrip(".")
        return f"{path!r} cannot be imported: {type(error).__name__}: {words}."
    return None


def _unknown_class(path: str, argument: Argument) -> str:
    names = [cls.__name__ for base in argument.bases for cls in subclasses(base)]
    category = CATEGORIES.get(argument.name)
    hint = did_you_mean(
        path.rpartition(".")[2],
        names or [cls.__name__ for cls in components()],
        f"mu list {category} lists them." if category else "check its name.",
    )
    return f"there is no {NOUNS.get(argument.name, 'class')} {path!r}; {hint}"


def _is_backbone(path: str) -> bool:
    from mu.backbones import Backbone

    cls = class_at(path, (Backbone,))
    return inspect.isclass(cls) and issubclass(cls, Backbone)


def _misfit(path: str, argument: Argument) -> str:
    """A sentence about a class that does not derive from the argument's base."""
    bases = " or ".join(base.__name__ for base in argument.bases)
    if argument.name == "backbone" and _is_backbone(path):
        name = path.rpartition(".")[2]
        return (
            f"{argument.owner} works on {bases}, not {name}; choose a task whose backbone is "
            f"{bases}, or a method for {name} (mu list methods shows what each works on)."
        )
    noun = NOUNS.get(argument.name, bases)
    if argument.name in CATEGORIES:
        return f"{path} is no {noun}; mu list {CATEGORIES[argument.name]} lists them."
    return f"{path} is no {noun}; {argument.key} takes {types.with_article(bases)}."


# ---- before a parser imports ---------------------------------------------------------------------


def check_components(value: Any, argument: Argument) -> None:
    """Refuse class paths that lead to anything but what their argument takes, null and NaN.

    Args:
        value: plain data of the argument, with classes as `class_path`.
        argument: argument that takes it.

    Raises:
        InputError: names the first such value; no module was imported for it.
    """
    fault = next(_foreign_classes(value, argument), None)
    if fault is not None:
        raise InputError(fault)


def _foreign_classes(value: Any, argument: Argument) -> Iterator[str]:
    if isinstance(value, list):
        for entry in value:
            yield from _foreign_classes(entry, argument.entry() or argument)
    elif isinstance(value, Mapping):
        path = value.get("class_path")
        if isinstance(path, str):
            yield from _foreign_class(path, argument)
        arguments = value.get("init_args") if {"class_path", "init_args"} & set(value) else None
        if isinstance(arguments, Mapping):
            cls = class_at(path, argument.bases) if isinstance(path, str) else argument.default
            yield from _foreign_arguments(cls, arguments, argument)
        else:
            for name, entry in value.items():
                if name not in ("class_path", "dict_kwargs"):
                    yield from _foreign_classes(
                        entry, replace(argument, key=f"{argument.key}.{name}")
                    )
    elif isinstance(value, str) and argument.bases and _names_class(value, argument):
        yield from _foreign_class(str(value), argument)


def _names_class(text: str, argument: Argument) -> bool:
    """Whether a text of an argument is a class path rather than a plain value."""
    return "." in text and (not argument.takes_plain_values or module_file(str(text)) is not None)


def _foreign_class(path: str, argument: Argument) -> Iterator[str]:
    """A sentence about a path that may not be imported, or leads to a function."""
    if "." not in path:
        return
    bases = argument.bases
    if may_import(path, bases, functions=not bases):
        value = class_at(path, bases)
        if inspect.isclass(value) or (value is not None and not bases):
            return
    yield class_fault(path, class_at(path, bases), argument) or _misfit(path, argument)


def _foreign_arguments(cls: Any, values: Mapping[str, Any], argument: Argument) -> Iterator[str]:
    if cls is None:
        cls = next((base for base in argument.bases if not inspect.isabstract(base)), None)
    hints = types.constructor_hints(cls) if inspect.isclass(cls) else {}
    defaults = default_classes(cls) if inspect.isclass(cls) else {}
    optional = types.optional_names(cls) if inspect.isclass(cls) else set(values)
    for name, entry in values.items():
        key = f"{argument.key}.{name}"
        hint = hints.get(name)
        if entry is None and hint is not None and name not in optional:
            yield f"{key} is null; it should be {types.in_words(hint)}."
        if isinstance(entry, float) and math.isnan(entry):
            yield f"{key} is NaN, which is no number; it should be {types.in_words(hint)}."
        owner = getattr(cls, "__name__", "")
        inner = Argument(key, hints.get(name), owner, defaults.get(name))
        yield from _foreign_classes(entry, inner)


@cache
def default_classes(cls: type) -> dict[str, type]:
    """Class of each argument whose default is a component, a lambda's included."""
    from jsonargparse import ArgumentParser, Namespace

    try:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(cls, "component", fail_untyped=False)
        defaults = parser.get_defaults().component
    except Exception:  # a class of somebody else's that the parser cannot read
        return {}
    classes = {}
    for name, value in vars(defaults).items():
        path = getattr(value, "class_path", None) if isinstance(value, Namespace) else None
        default = find(path) if isinstance(path, str) else None
        if default is not None:
            classes[name] = default
    return classes
