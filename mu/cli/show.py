"""`mu show`: one method (or task, backbone, suite, attack, mask), read from its source."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mu.cli.catalogue import ROOTS, Component, Sources
from mu.cli.list import assigned, domains, needs, tell_faults
from mu.config.classes import did_you_mean
from mu.utils.errors import InputError


@dataclass(frozen=True)
class Argument:
    """One argument of a constructor, as the source has it; `default` is empty where it must be
    given.
    """

    name: str
    kind: str
    default: str
    about: str


def main(argv: list[str]) -> int:
    """The command; returns its exit code."""
    if not argv or "-h" in argv or "--help" in argv:
        print(
            "usage: mu show NAME\n\nA method's paper, equation, arguments with their defaults, "
            "and presets; `mu list methods` has the "
            "names.\nTasks, backbones, suites, attacks and masks can be shown too, and your own "
            "in this folder (my_method.MyMethod)."
        )
        return 0
    if len(argv) > 1:
        raise InputError(f"mu show takes one name, not {len(argv)}.")
    sources = Sources(Path())
    tell_faults(sources)
    parts = [(kind, part) for kind in ROOTS for part in sources.parts(kind)]
    # a name of ours before the same of the user's
    names = {part.name: (kind, part) for kind, part in reversed(parts)}
    paths = {
        path: (kind, part)
        for kind, part in parts
        for path in (part.path, f"{part.file.module}.{part.name}")
    }
    found = {**names, **paths}
    name = argv[0]
    if name not in found:
        near = did_you_mean(name.rpartition(".")[2], names, "mu list shows what there is.")
        raise InputError(f"there is nothing named {name!r}; {near}")
    kind, part = found[name]
    print("\n".join(_shown(kind, part)))
    return 0


def _shown(kind: str, part: Component) -> list[str]:
    lines = [f"{part.name}  ({part.path}, {part.file.path.name})", ""]
    head = ast.get_docstring(part.file.tree)
    own = _before_arguments(ast.get_docstring(part.node) or "")
    if kind == "methods":
        lines += [head or "", "", own, "", f"works on: {domains(part)}", f"needs: {needs(part)}"]
        plan = part.attribute("plan")
        if isinstance(plan, ast.expr) and not assigned(part, "plan"):
            lines.append(f"plan: {ast.unparse(plan)}")
    else:
        lines.append(own)
    lines += ["", "arguments:", *_table(arguments(part))]
    if kind == "methods":
        presets = list(_presets(part.name))
        lines += ["", "presets:" if presets else "presets: none in configs/method here", *presets]
    return lines


def _before_arguments(docstring: str) -> str:
    return re.split(r"\n\s*Args:\n", docstring)[0].strip()


def arguments(part: Component) -> list[Argument]:
    """Arguments that the constructor takes, `**kwargs` followed to the bases; what a constructor
    sets itself is left out.
    """
    found: dict[str, Argument] = {}
    fixed: set[str] = set()
    for node, init in part.constructors():
        about = _descriptions(ast.get_docstring(node) or "")
        given = init.args.args[1:]
        defaults = [None] * (len(given) - len(init.args.defaults)) + list(init.args.defaults)
        pairs = [
            *zip(given, defaults, strict=True),
            *zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True),
        ]
        own = {argument.arg for argument, _ in pairs}
        for argument, default in pairs:
            if argument.arg not in found and argument.arg not in fixed:
                kind = ast.unparse(argument.annotation) if argument.annotation else ""
                value = _default(default) if default is not None else ""
                found[argument.arg] = Argument(
                    argument.arg, kind, value, about.get(argument.arg, "")
                )
        fixed |= _passed_on(init) - own - set(found)
    return list(found.values())


def _default(node: ast.expr) -> str:
    written = ast.unparse(node.body if isinstance(node, ast.Lambda) else node)
    return re.sub(r"^torch\.optim\.(\w+)\(params, ?", r"\1(", written)


def _passed_on(init: ast.FunctionDef) -> set[str]:
    """Keywords that the constructor gives to its base's."""
    calls = [
        node
        for node in ast.walk(init)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__"
    ]
    return {keyword.arg for call in calls for keyword in call.keywords if keyword.arg}


def _descriptions(docstring: str) -> dict[str, str]:
    """The `Args:` section, by name."""
    section = re.search(
        r"\n\s*Args:\n(.*?)(?=\n\s*(?:Returns|Raises|Yields|Example|Shape)s?:|\Z)", docstring, re.S
    )
    if section is None:
        return {}
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\s{0,4}[*\w]+(?: \([^)]*\))?: )", textwrap.dedent(section[1])):
        name, _, text = entry.strip().partition(":")
        found |= {word.strip(): " ".join(text.split()) for word in name.split(",")}
    return found


def _table(found: list[Argument]) -> list[str]:
    lines = []
    for argument in found:
        kind = re.sub(
            r"Literal\[([^\]]*)\]", lambda found: found[1].replace(", ", " | "), argument.kind
        )
        lines.append(
            f"  {argument.name}: {kind}"
            + (f" = {argument.default}" if argument.default else "  (must be given)")
        )
        lines += textwrap.wrap(
            argument.about, 120, initial_indent="      ", subsequent_indent="      "
        )
    return lines


def _presets(method: str) -> list[str]:
    """Files of configs/method, here and beside the package, that name the method; each with the
    first line of its head.
    """
    package = find_spec("mu")
    beside = (
        Path(package.origin).parent.parent / "configs" / "method"
        if package is not None and package.origin
        else Path()
    )
    here = Path("configs") / "method"
    folders = (
        [here]
        if here.is_dir() and beside.is_dir() and here.resolve() == beside.resolve()
        else [here, beside]
    )
    lines = []
    for file in [
        file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.yaml"))
    ]:
        text = file.read_text(encoding="utf-8")
        named = re.search(r"^model:(?:.*\n)*?.*?class_path:\s*['\"]?([\w.]+)", text, re.M)
        if named and named[1].rpartition(".")[2] == method:
            first = next(
                (line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")),
                "",
            )
            lines.append(f"  {file}: {first}" if first else f"  {file}")
    return lines
