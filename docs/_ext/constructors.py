"""Arguments of a component's constructor, with defaults as they are written in the source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from docstring_parser import DocstringStyle, parse


@dataclass(frozen=True)
class Argument:
    """One argument of a constructor; `default` is empty where it must be given."""

    name: str
    annotation: str
    default: str
    description: str


def arguments(component: type) -> list[Argument]:
    """Arguments that a class takes, `**kwargs` followed to the bases.

    An argument that a constructor sets when it calls its base's is not among them.
    """
    collected: dict[str, Argument] = {}
    fixed: set[str] = set()
    for cls, init in _constructors(component):
        descriptions = _descriptions(cls)
        names = set()
        for argument, default in _pairs(init.args):
            names.add(argument.arg)
            if argument.arg in collected or argument.arg in fixed:
                continue
            collected[argument.arg] = Argument(
                argument.arg,
                ast.unparse(argument.annotation) if argument.annotation else "",
                _written(default),
                descriptions.get(argument.arg, ""),
            )
        fixed |= _set_by(init) - names
    return [
        argument
        if argument.description
        else Argument(
            argument.name, argument.annotation, argument.default, _inherited(component, argument)
        )
        for argument in collected.values()
    ]


def _constructors(component: type) -> Iterator[tuple[type, ast.FunctionDef]]:
    """The constructors that arguments reach, from the class to its bases."""
    for cls in component.__mro__:
        if "__init__" not in cls.__dict__ or not cls.__module__.startswith(
            ("mu.", "tasks.", "callbacks.")
        ):
            continue
        source = textwrap.dedent(inspect.getsource(cls.__init__))
        init = ast.parse(source).body[0]
        assert isinstance(init, ast.FunctionDef)
        yield cls, init
        if init.args.kwarg is None:
            return


def _pairs(spec: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    positional = spec.args[1:]
    missing = [None] * (len(positional) - len(spec.defaults))
    yield from zip(positional, [*missing, *spec.defaults], strict=True)
    yield from zip(spec.kwonlyargs, spec.kw_defaults, strict=True)


def _written(default: ast.expr | None) -> str:
    if default is None:
        return ""
    return ast.unparse(default.body if isinstance(default, ast.Lambda) else default)


def _descriptions(cls: type) -> dict[str, str]:
    parsed = parse(cls.__doc__ or "", style=DocstringStyle.GOOGLE)
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in parsed.params}


def _inherited(component: type, argument: Argument) -> str:
    """The description of an argument in the nearest base that has one."""
    for cls in component.__mro__:
        description = _descriptions(cls).get(argument.name)
        if description:
            return description
    return ""


def _set_by(init: ast.FunctionDef) -> set[str]:
    """Names of the arguments that the constructor gives its base by keyword."""
    return {
        keyword.arg
        for node in ast.walk(init)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "__init__"
        for keyword in node.keywords
        if keyword.arg
    }
