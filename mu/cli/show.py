"""`mu show`: a method with arguments and presets, another component, or the keys of a study."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from docstring_parser import google

from mu.cli import show_study
from mu.cli.catalogue import BASE_CLASSES, Component, Sources
from mu.cli.list import domains, needs, print_faults, set_by_constructor, title
from mu.config.classes import did_you_mean
from mu.utils.errors import InputError
from mu.utils.shipped_files import config_names

_HELP = """usage: mu show NAME

A method's paper, equation, arguments with their defaults, and presets; `mu list methods` lists the
names. Tasks, backbones, suites, attacks and masks are shown too, and the classes of your own files
in this folder (my_method.MyMethod). `mu show study` lists the keys of a study file."""


@dataclass(frozen=True)
class Argument:
    """Argument of a constructor, as the source writes it.

    Attributes:
        name: its name.
        annotation: its type; empty where it has none.
        default: its default; empty for a required argument.
        description: from the docstring's `Args` section.
    """

    name: str
    annotation: str
    default: str
    description: str


def main(argv: list[str]) -> int:
    """Run `mu show`; returns the exit code."""
    if not argv or "-h" in argv or "--help" in argv:
        print(_HELP)
        return 0
    if len(argv) > 1:
        raise InputError(f"mu show takes one name, not {len(argv)}.")
    if argv[0] == "study":
        print("\n".join(show_study.page()))
        return 0
    sources = Sources(Path())
    print_faults(sources)
    # 1. every component by its bare name (installed before the user's) and by its paths
    components = [
        (category, component)
        for category in BASE_CLASSES
        for component in sources.components(category)
    ]
    by_name = {component.name: (category, component) for category, component in components[::-1]}
    by_path = {
        path: (category, component)
        for category, component in components
        for path in (component.path, f"{component.file.module}.{component.name}")
    }
    candidates = {**by_name, **by_path}
    # 2. the one that was asked for
    name = argv[0]
    if name not in candidates:
        hint = did_you_mean(name.rpartition(".")[2], by_name, "mu list lists the names.")
        raise InputError(f"there is nothing named {name!r}; {hint}")
    print("\n".join(_page(*candidates[name])))
    return 0


def _page(category: str, component: Component) -> list[str]:
    lines = [f"{component.name}  ({component.path}, {component.file.path.name})", ""]
    description = _before_arguments(ast.get_docstring(component.node) or "")
    if category == "methods":
        head = ast.get_docstring(component.file.tree) or ""
        lines += [head, "", description, ""]
        lines += [f"works on: {domains(component)}", f"needs: {needs(component)}"]
        plan = component.attribute("plan")
        if isinstance(plan, ast.expr) and not set_by_constructor(component, "plan"):
            lines.append(f"plan: {ast.unparse(plan)}")
    else:
        lines.append(description)
    lines += ["", "arguments:", *_argument_lines(arguments(component))]
    if category == "methods":
        presets = _presets(component.name)
        lines += ["", "presets:" if presets else "presets: none", *presets]
    return lines


def _before_arguments(docstring: str) -> str:
    return re.split(r"\n\s*Args:\n", docstring)[0].strip()


def arguments(component: Component) -> list[Argument]:
    """Arguments of a constructor and, through `**kwargs`, of its bases' constructors.

    Arguments that a constructor passes to its base are left out.
    """
    collected: dict[str, Argument] = {}
    fixed: set[str] = set()
    constructors = list(component.constructors())
    for position, (node, init) in enumerate(constructors):
        descriptions = _descriptions(ast.get_docstring(node) or "")
        parameters = _parameters(init)
        for name, (annotation, default) in parameters.items():
            if name not in collected and name not in fixed:
                collected[name] = Argument(name, annotation, default, descriptions.get(name, ""))
        if position + 1 < len(constructors):
            _, base = constructors[position + 1]
            fixed |= _passed_to_base(init, base) - set(parameters) - set(collected)
    return list(collected.values())


def _parameters(init: ast.FunctionDef) -> dict[str, tuple[str, str]]:
    """Annotation and default of each parameter after `self`."""
    positional = init.args.args[1:]
    required = len(positional) - len(init.args.defaults)
    pairs = [
        *zip(positional, [*[None] * required, *init.args.defaults], strict=True),
        *zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True),
    ]
    return {
        argument.arg: (
            ast.unparse(argument.annotation) if argument.annotation else "",
            _default(default) if default is not None else "",
        )
        for argument, default in pairs
    }


def _default(node: ast.expr) -> str:
    text = ast.unparse(node.body if isinstance(node, ast.Lambda) else node)
    return re.sub(r"^torch\.optim\.(\w+)\(params, ?", r"\1(", text)


def _super_calls(init: ast.FunctionDef) -> list[ast.Call]:
    """Calls of the base's constructor."""
    return [
        node
        for node in ast.walk(init)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__"
    ]


def _passed_to_base(init: ast.FunctionDef, base: ast.FunctionDef) -> set[str]:
    """Arguments of a base's constructor that a constructor passes, by keyword or by position."""
    parameters = [argument.arg for argument in base.args.args[1:]]
    calls = _super_calls(init)
    keywords = {keyword.arg for call in calls for keyword in call.keywords if keyword.arg}
    return keywords | {
        name for call in calls for name, _ in zip(parameters, call.args, strict=False)
    }


def _descriptions(docstring: str) -> dict[str, str]:
    """Descriptions of the `Args` section by name; an entry `a, b: ...` counts for both."""
    return {
        name.strip(): " ".join((parameter.description or "").split())
        for parameter in google.parse(docstring).params
        for name in parameter.arg_name.split(",")
    }


def _argument_lines(table: list[Argument]) -> list[str]:
    lines = []
    for argument in table:
        annotation = re.sub(
            r"Literal\[([^\]]*)\]",
            lambda match: match[1].replace(", ", " | "),
            argument.annotation,
        )
        default = f" = {argument.default}" if argument.default else "  (must be given)"
        lines.append(f"  {argument.name}: {annotation}{default}")
        indent = " " * 6
        lines += textwrap.wrap(
            argument.description, 100, initial_indent=indent, subsequent_indent=indent
        )
    return lines


def _presets(method: str) -> list[str]:
    """Names of the configurations that name a method, with the first line of their head."""
    lines = []
    for name, file in config_names().items():
        if not name.startswith("method/"):
            continue
        text = file.read_text(encoding="utf-8")
        match = re.search(r"^model:(?:.*\n)*?.*?class_path:\s*['\"]?([\w.]+)", text, re.M)
        if match and match[1].rpartition(".")[2] == method:
            head = title(file)
            lines.append(f"  {name}: {head}" if head else f"  {name}")
    return lines
