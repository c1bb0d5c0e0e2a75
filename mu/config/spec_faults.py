"""Faults in a component's specification, found by walking the types of its constructor.

Called after jsonargparse has refused a specification, to say in one sentence what is wrong with it.
jsonargparse's own error texts are not read: they change from release to release. A value counts as
wrong where a parser with that one argument refuses it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from mu.config import argument_types as types
from mu.config.classes import components, did_you_mean, find, subclasses

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
_CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}


class CommandLineValue(str):
    """Value written on the command line, which the parser reads as YAML."""


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
        return tuple(dict.fromkeys(cls for cls, _ in types.component_classes(self.hint)))

    @property
    def supplied(self) -> int:
        """Number of the component's positional arguments that the program supplies."""
        return max((count for _, count in types.component_classes(self.hint)), default=0)

    @property
    def takes_plain_values(self) -> bool:
        """Whether it takes values other than components, lists and null."""
        return any(
            member is not type(None)
            and not any(types.component_classes(member))
            and types.entry_hint(member) is None
            for member in types.alternatives(self.hint)
        )

    def entry(self) -> Argument | None:
        """The same argument with the type of a list's entry; None where it takes no list."""
        hint = types.entry_hint(self.hint)
        return None if hint is None else replace(self, hint=hint)


def value_fault(value: Any, argument: Argument) -> str | None:
    """A sentence about the first fault in a value; None where no fault was located.

    Args:
        value: plain data: a number, a list, a specification `{class_path, init_args}`, ...
        argument: argument that takes it.
    """
    if argument.hint is None or _fits(value, argument.hint):
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
        if _fits(value, argument.hint):
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
        cls = _class_of(str(path), argument.bases)
        fault = _class_fault(str(path), cls, argument)
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
    defaults = _default_classes(cls)
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


# ---- the class -----------------------------------------------------------------------------------


def _class_of(path: str, bases: tuple[type, ...]) -> Any:
    """The class (or function) of a path, or the subclass of a bare name; None where there is none.

    Of classes with the same bare name, one that fits comes first.
    """
    if "." not in path:
        candidates = [cls for base in bases for cls in (base, *subclasses(base))]
        return next((cls for cls in candidates if cls.__name__ == path), None) or find(path)
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name, None)
    except Exception:  # `_import_fault` says what is wrong with the module
        return None


def _class_fault(path: str, cls: Any, argument: Argument) -> str | None:
    """A sentence about a class path that names no class, or not one of the right base."""
    if cls is None:
        return _import_fault(path) or _unknown_class(path, argument)
    if not inspect.isclass(cls):
        return None
    if not issubclass(cls, argument.bases):
        return _misfit(path, argument)
    if inspect.isabstract(cls):
        names = [child.__name__ for child in subclasses(cls) if not inspect.isabstract(child)]
        choices = " or ".join(names[:4]) or "one of its subclasses"
        return f"{path} is a base of others and cannot be used itself; choose {choices}."
    return None


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
    except Exception as error:  # the module is the user's and may raise anything
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


def _misfit(path: str, argument: Argument) -> str:
    """A sentence about a class that does not derive from the argument's base."""
    bases = " or ".join(base.__name__ for base in argument.bases)
    if argument.name == "backbone":
        name = path.rpartition(".")[2]
        return (
            f"{argument.owner} works on {bases}, not {name}; choose a task whose backbone is "
            f"{bases}, or a method for {name} (mu list methods shows what each works on)."
        )
    noun = NOUNS.get(argument.name, "class of that kind")
    if argument.name in CATEGORIES:
        return f"{path} is no {noun}; mu list {CATEGORIES[argument.name]} lists them."
    return f"{path} is no {noun}; {argument.key} takes {types.with_article(bases)}."


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

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    return parser


def _fits(value: Any, hint: Any) -> bool:
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
    import yaml

    if isinstance(value, CommandLineValue):
        try:
            return yaml.safe_load(str(value))
        except yaml.YAMLError:
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


@cache
def _default_classes(cls: type) -> dict[str, type]:
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


def _first(faults: Iterable[str | None]) -> str | None:
    return next((fault for fault in faults if fault is not None), None)
