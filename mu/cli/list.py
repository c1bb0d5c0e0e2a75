"""`mu list`: methods, tasks, backbones, suites, attacks, masks, configurations and runs."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

from mu.cli.catalogue import BASE_CLASSES, Component, Function, Sources
from mu.cli.citations import paper_of
from mu.config.classes import did_you_mean
from mu.utils.errors import InputError
from mu.utils.shipped_files import config_names

NEEDS = ("forget", "retain", "labels", "reference", "substitute")
_HELP = f"""usage: mu list {"|".join(BASE_CLASSES)}|configs
       mu list runs [FOLDER]

List the installed classes, those of plugins and of your own files in this folder included;
configs: the files that -c finds by these names, ./configs before those that come with mu;
runs: the run folders below FOLDER (runs), with the results of the weights that they hold.
Without a word, the number and the names of each category."""


def main(argv: list[str]) -> int:
    """Run `mu list`; returns the exit code."""
    if "-h" in argv or "--help" in argv:
        print(_HELP)
        return 0
    if argv and argv[0] in ("run", "runs"):
        return _list_runs(argv[1:])
    if len(argv) > 1:
        raise InputError(
            f"mu list takes one word ({', '.join((*BASE_CLASSES, 'configs', 'runs'))}), not "
            f"{len(argv)}."
        )
    if argv and argv[0] in ("config", "configs"):
        print_table(
            ["name", "what"], [[name, title(file)] for name, file in sorted(config_names().items())]
        )
        return 0
    sources = Sources(Path())
    print_faults(sources)
    if not argv:
        for category in BASE_CLASSES:
            names = [display_name(component) for component in sources.components(category)]
            print(f"{category:<10} {len(names):>3}  {', '.join(names)}")
        configs = config_names()
        folders = sorted({name.partition("/")[0] for name in configs})
        print(f"{'configs':<10} {len(configs):>3}  of {', '.join(folders)}")
        return 0
    category = argv[0] if argv[0] in BASE_CLASSES else f"{argv[0]}s"
    if category not in BASE_CLASSES:
        words = (*BASE_CLASSES, "configs", "runs")
        hint = did_you_mean(argv[0], words, f"it has {', '.join(words)}.")
        raise InputError(f"mu list has no {argv[0]!r}; {hint}")
    components = sources.components(category)
    table = _method_table(components) if category == "methods" else _table(components)
    print_table(*table)
    return 0


def _list_runs(folders: list[str]) -> int:
    from mu.cli.list_runs import TITLES, rows_of

    if len(folders) > 1:
        raise InputError(f"mu list runs takes one folder, not {len(folders)}.")
    print_table(TITLES, rows_of(Path(*folders or ["runs"])))
    return 0


def title(file: Path) -> str:
    """First comment line of a configuration; empty where it has none."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ").strip() for line in lines if line.startswith("#")), "")


def display_name(component: Component) -> str:
    """Name by which a command takes the class: the import path for a user's own."""
    return component.path if component.from_user else component.name


def print_faults(sources: Sources) -> None:
    """Print one line about each of the user's files that cannot be parsed."""
    for fault in sources.faults:
        print(f"mu: {fault}", file=sys.stderr)


def _method_table(components: list[Component]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for component in components:
        paper = paper_of(component)
        citation = ": ".join(word for word in (paper.short, paper.title) if word)
        rows.append(
            [
                display_name(component),
                paper.year,
                domains(component),
                needs(component),
                citation or component.summary,
            ]
        )
    return ["method", "year", "works on", "needs", "paper"], rows


def _table(components: list[Component]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [display_name(component), component.path, component.summary] for component in components
    ]
    return ["name", "import path", "what"], rows


def domains(method: Component) -> str:
    """Backbones that a method works on, by its constructor's annotation."""
    annotation = method.backbone
    names = [
        name.strip().rpartition(".")[2]
        for name in annotation.replace("Union[", "").strip("]").replace(",", "|").split("|")
    ]
    return "any" if not annotation or "Backbone" in names else ", ".join(names)


def needs(method: Component) -> str:
    """Parts of the task that a method needs; `?` marks those that depend on its arguments."""
    names = []
    for name in NEEDS:
        attribute = f"needs_{name}"
        value = method.attribute(attribute)
        if not isinstance(value, ast.Constant) or set_by_constructor(method, attribute):
            names.append(f"{name}?")
        elif value.value:
            names.append(name)
    return ", ".join(names)


def set_by_constructor(component: Component, name: str) -> bool:
    """Whether a constructor assigns `self.NAME`."""
    constructors = [
        entry
        for file, node in component.mro
        if f"self.{name}" in file.text
        for entry in node.body
        if isinstance(entry, Function) and entry.name == "__init__"
    ]
    return any(
        isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Store)
        for constructor in constructors
        for node in ast.walk(constructor)
    )


def print_table(titles: list[str], rows: list[list[str]]) -> None:
    """Print aligned columns; on a terminal the last column is cut at its edge."""
    if not rows:
        print("none")
        return
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    edge = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for row in [titles, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        line = "  ".join(cells).rstrip()
        print(line if not edge or len(line) <= edge else line[: edge - 1] + "…")
