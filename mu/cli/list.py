"""`mu list`: what there is."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

from mu.cli.catalogue import ROOTS, Component, Function, Sources
from mu.cli.citations import paper_of
from mu.config.classes import did_you_mean
from mu.utils.errors import InputError

NEEDS = ("forget", "retain", "labels", "reference", "substitute")
_USAGE = f"usage: mu list {'|'.join(ROOTS)}"


def main(argv: list[str]) -> int:
    """The command; returns its exit code."""
    if "-h" in argv or "--help" in argv:
        print(
            f"{_USAGE}\n\nWhat is installed, plugins included, and by its import path what your "
            "own files in this folder hold. Without a "
            "word, the number of each."
        )
        return 0
    if len(argv) > 1:
        raise InputError(f"mu list takes one word ({', '.join(ROOTS)}), not {len(argv)}.")
    sources = Sources(Path())
    tell_faults(sources)
    if not argv:
        for kind in ROOTS:
            names = [shown_name(part) for part in sources.parts(kind)]
            print(f"{kind:<10} {len(names):>3}  {', '.join(names)}")
        return 0
    kind = argv[0] if argv[0] in ROOTS else f"{argv[0]}s"
    if kind not in ROOTS:
        raise InputError(
            f"mu list has no {argv[0]!r}; "
            f"{did_you_mean(argv[0], ROOTS, 'it has ' + ', '.join(ROOTS) + '.')}"
        )
    parts = sources.parts(kind)
    print_table(*(_methods(parts) if kind == "methods" else _others(parts)))
    return 0


def shown_name(part: Component) -> str:
    """The class's name, by which it can be given to a command; a user's own needs its import
    path.
    """
    return part.path if part.own else part.name


def tell_faults(sources: Sources) -> None:
    """One line about each of the user's files that cannot be read."""
    for fault in sources.faults:
        print(f"mu: {fault}", file=sys.stderr)


def _methods(parts: list[Component]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for part in parts:
        paper = paper_of(part)
        about = ": ".join(word for word in (paper.short, paper.title) if word) or part.about
        rows.append([shown_name(part), paper.year, domains(part), needs(part), about])
    return ["method", "year", "works on", "needs", "paper"], rows


def _others(parts: list[Component]) -> tuple[list[str], list[list[str]]]:
    return ["name", "import path", "what"], [
        [shown_name(part), part.path, part.about] for part in parts
    ]


def domains(part: Component) -> str:
    """What the method works on, by the annotation of its backbone."""
    annotation = part.backbone
    names = [
        name.strip().rpartition(".")[2]
        for name in annotation.replace("Union[", "").strip("]").replace(",", "|").split("|")
    ]
    return "any" if not annotation or "Backbone" in names else ", ".join(names)


def needs(part: Component) -> str:
    """What the method needs from the task; `?` where that depends on its arguments."""
    found = []
    for name in NEEDS:
        value = part.attribute(f"needs_{name}")
        if (
            isinstance(value, Function)
            or not isinstance(value, ast.Constant)
            or assigned(part, f"needs_{name}")
        ):
            found.append(f"{name}?")
        elif value.value:
            found.append(name)
    return ", ".join(found)


def assigned(part: Component, name: str) -> bool:
    """Whether a constructor sets it."""
    inits = [
        (file, entry)
        for file, node in part.line
        for entry in node.body
        if isinstance(entry, ast.FunctionDef)
        and entry.name == "__init__"
        and f"self.{name}" in file.text
    ]
    return any(
        isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Store)
        for _, init in inits
        for node in ast.walk(init)
    )


def print_table(titles: list[str], rows: list[list[str]]) -> None:
    """Aligned columns; on a terminal the last is cut at its edge."""
    if not rows:
        print("none")
        return
    width = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    edge = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for row in [titles, *rows]:
        line = "  ".join(cell.ljust(size) for cell, size in zip(row, width, strict=True)).rstrip()
        print(line if not edge or len(line) <= edge else line[: edge - 1] + "…")
