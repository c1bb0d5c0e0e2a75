"""Generated parts of the reference: glossary of metrics, attacks, help of the commands, API."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docstring_markup import to_markdown
from method_pages import ROOT, table_cell
from results_tables import as_markdown

WINGS = {
    "mu.core": "The training core: base classes of methods, masks, substitutes, learning rates.",
    "mu.methods": "Base classes of methods, and components that a configuration exchanges.",
    "mu.functional": "Losses, weights and selections: pure functions, one value per example.",
    "mu.metrics": "Pure measures, and the results of a run.",
    "mu.data": "Splits, data plans, loaders and the base of tasks.",
    "mu.backbones": "Models with their domain's meaning of loss, prediction and divergence.",
    "mu.attacks": "Attacks on unlearned models.",
    "mu.evaluation": "What suites compute with: judges, features, image sets.",
    "tasks": "Tasks: data sets with a forget and a retain part.",
    "callbacks": "Suites and other callbacks.",
}


def glossary() -> str:
    """Every metric that a suite defines, by suite, in the suite's own sentence."""
    from callbacks import Suite

    wing = importlib.import_module("callbacks")
    sections = []
    for name in sorted(wing.__all__):
        suite = getattr(wing, name)
        if not (
            inspect.isclass(suite)
            and issubclass(suite, Suite)
            and getattr(suite, "definitions", None)
        ):
            continue
        rows = [
            (f"`{metric}…`" if metric.endswith("/") else f"`{metric}`", table_cell(sentence))
            for metric, sentence in suite.definitions.items()
        ]
        title = (inspect.cleandoc(suite.__doc__ or "")).split("\n\n")[0]
        sections += [f"## {name}", to_markdown(title), as_markdown(("metric", "meaning"), rows)]
    return "\n\n".join(sections) + "\n"


def commands() -> str:
    """The help of every command, as the parsers print it."""
    from mu.cli.main import COMMANDS

    sections = []
    for name, purpose in COMMANDS.items():
        sections += [f"## mu {name}", f"{purpose[0].upper()}{purpose[1:]}."]
        text = help_of(name)
        block = f"```text\n{text}\n```"
        # the commands of LightningCLI have all of the trainer's options
        long = text.count("\n") > 40
        sections.append(f"::::{{dropdown}} `mu {name} --help`\n{block}\n::::" if long else block)
    return "\n\n".join(sections) + "\n"


def help_of(command: str) -> str:
    """What `mu COMMAND --help` prints.

    Raises:
        RuntimeError: when the command does not end with exit code 0.
    """
    from mu.cli.main import main

    output = io.StringIO()
    errors = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main([command, "--help"])
    if code:
        raise RuntimeError(f"mu {command} --help ended with {code}: {errors.getvalue()}")
    # escape sequences of a terminal, and characters without width, are no text
    text = re.sub(r"\x1b\[[0-9;]*m", "", output.getvalue())
    return "".join(char for char in text if char.isprintable() or char == "\n").strip()


def study_keys() -> str:
    """Keys of a study file, one table a section, from the schema."""
    from mu.bench.study_schema import entries, sections, words
    from mu.cli.show_study import plain_default

    parts = []
    for key, section in sections():
        rows = []
        for entry in entries(section):
            default = "must be given" if entry.is_required else plain_default(entry.default)
            rows.append(
                (
                    f"`{entry.name}`",
                    table_cell(words(entry.hint)),
                    f"`{default}`" if default and not entry.is_required else default,
                    table_cell(entry.description),
                )
            )
        title = (section.__doc__ or "").split("\n")[0]
        parts += [f"### {f'`{key}`' if key else 'Top level'}", to_markdown(title)]
        parts.append(as_markdown(("key", "type", "default", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def api_page(wing: str) -> str:
    """Autodoc directives for what a wing exports, by the file that defines it."""
    sections = [f"# {wing}", WINGS[wing]]
    for module, names in _exports(wing):
        document = inspect.getdoc(importlib.import_module(module)) or ""
        sections += [
            f"## {module}",
            to_markdown(document),
            f"```{{testsetup}}\nimport torch\nfrom {module} import *\n```",
        ]
        directives = [_directive(wing, module, name) for name in names]
        sections.append("```{eval-rst}\n" + "\n\n".join(filter(None, directives)) + "\n```")
    return "\n\n".join(sections) + "\n"


def _exports(wing: str) -> Iterator[tuple[str, list[str]]]:
    """Files of a wing with their public names; of functional and metrics, those not exported too.

    Methods have pages of their own, so of `mu.methods` only bases and components are here.
    """
    if wing in ("mu.functional", "mu.metrics"):
        for file in sorted((ROOT / wing.replace(".", "/")).glob("*.py")):
            if not file.name.startswith("_"):
                names = [
                    node.name
                    for node in ast.parse(file.read_text(encoding="utf-8")).body
                    if isinstance(node, ast.FunctionDef | ast.ClassDef)
                    and not node.name.startswith("_")
                ]
                yield f"{wing}.{file.stem}", names
        return
    by_module: dict[str, list[str]] = {}
    stub = ROOT / wing.replace(".", "/") / "__init__.pyi"
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            module = f"{wing}.{node.module}"
            by_module.setdefault(module, []).extend(alias.name for alias in node.names)
    if wing == "mu.methods":
        by_module = {name: part for name, part in by_module.items() if ".components." in name}
        for file in sorted((ROOT / "mu/methods/bases").glob("*.py")):
            if not file.name.startswith("_"):
                by_module[f"mu.methods.bases.{file.stem}"] = _classes(file)
    yield from sorted((module, names) for module, names in by_module.items() if names)


def _classes(file: Path) -> list[str]:
    return [
        node.name
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def _directive(wing: str, module: str, name: str) -> str:
    """The autodoc directive of a public name, by the shortest path that imports it."""
    thing: Any = getattr(importlib.import_module(module), name)
    path = f"{module}.{name}"
    for package in (wing, module.rpartition(".")[0]):
        exporter = importlib.import_module(package)
        if name in getattr(exporter, "__all__", ()) and getattr(exporter, name) is thing:
            path = f"{package}.{name}"
            break
    if inspect.isclass(thing):
        return f".. autoclass:: {path}\n   :members:"
    return f".. autofunction:: {path}" if inspect.isfunction(thing) else ""
