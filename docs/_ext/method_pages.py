"""One page a method: equation, arguments, presets, rows of RESULTS.md, source."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from constructors import arguments
from docstring_markup import to_markdown
from results_tables import Table, as_markdown, tables

ROOT = Path(__file__).resolve().parents[2]
NEEDS = ("forget", "retain", "labels", "reference", "substitute")
DOMAINS = {
    "general": "Any model",
    "vision": "Image classifiers and regressors",
    "diffusion": "Diffusion models",
    "language": "Language models",
}


@dataclass(frozen=True)
class Preset:
    """A file of configs/method; `purpose` is the first line of its comment."""

    name: str
    purpose: str
    text: str


@dataclass(frozen=True)
class Project:
    """What method pages are made from, read once.

    Attributes:
        presets: by the name of the class.
        tables: of RESULTS.md.
        studies: by file of configs/bench, the class of each name that the study gives a method.
    """

    presets: dict[str, list[Preset]]
    tables: list[Table]
    studies: dict[str, dict[str, str]]

    @classmethod
    def read(cls, root: Path = ROOT) -> Project:
        """Read configs and RESULTS.md."""
        presets: dict[str, list[Preset]] = {}
        for file in sorted((root / "configs/method").glob("*.yaml")):
            text = file.read_text(encoding="utf-8")
            method = _public_name(yaml.safe_load(text)["model"]["class_path"])
            purpose = text.split("\n")[0].lstrip("# ").rstrip(".")
            presets.setdefault(method, []).append(Preset(file.stem, purpose, text))
        studies = {
            file.name: _method_classes(yaml.safe_load(file.read_text(encoding="utf-8")))
            for file in (root / "configs/bench").glob("*.yaml")
        }
        return cls(presets, tables((root / "RESULTS.md").read_text(encoding="utf-8")), studies)


def _public_name(class_path: str) -> str:
    """The exported method that a preset's class is, or derives from (`mu.methods.compat`)."""
    module, _, name = class_path.rpartition(".")
    exported = importlib.import_module("mu.methods").__all__
    lineage = getattr(importlib.import_module(module), name).__mro__
    return next((cls.__name__ for cls in lineage if cls.__name__ in exported), name)


def _method_classes(study: dict[str, Any]) -> dict[str, str]:
    entries = study.get("methods") or {}
    if not isinstance(entries, dict):
        return {}
    classes = {}
    for name, entry in entries.items():
        model = (entry or {}).get("model") or {}
        classes[name] = str(model.get("class_path", name)).rpartition(".")[2]
    return classes


def methods() -> dict[str, list[type]]:
    """The public methods of `mu.methods` by the folder that they stand in, by name."""
    from mu.core.module import UnlearningModule

    wing = importlib.import_module("mu.methods")
    by_domain: dict[str, list[type]] = {domain: [] for domain in DOMAINS}
    for name in sorted(wing.__all__, key=str.lower):
        component = getattr(wing, name)
        if inspect.isclass(component) and issubclass(component, UnlearningModule):
            by_domain[component.__module__.split(".")[2]].append(component)
    return by_domain


def page(method: type, project: Project) -> str:
    """The page of a method."""
    sections = [
        f"# {method.__name__}",
        _head(method),
        _facts(method),
        "## Arguments",
        _arguments_table(method),
        "## Presets",
        _presets(project.presets.get(method.__name__, [])),
        *_results(method.__name__, project),
        "## Source",
        _source(method),
    ]
    return "\n\n".join(sections) + "\n"


def index(by_domain: dict[str, list[type]]) -> str:
    """The page that lists all methods."""
    sections = [
        "# Methods",
        "One paper, one file. Each page is made from the source: citation and equation from the "
        "head of the file, defaults from the constructor, presets from `configs/method`, and what "
        "was measured from RESULTS.md. `mu show NAME` prints the same in a terminal.",
    ]
    for domain, components in by_domain.items():
        rows = [
            (f"[{method.__name__}]({method.__name__})", _title(method)) for method in components
        ]
        sections += [f"## {DOMAINS[domain]}", as_markdown(("method", "what it does"), rows)]
    names = "\n".join(method.__name__ for part in by_domain.values() for method in part)
    sections.append(f"```{{toctree}}\n:hidden:\n\n{names}\n```")
    return "\n\n".join(sections) + "\n"


def _title(method: type) -> str:
    first = (inspect.getdoc(inspect.getmodule(method)) or "").split("\n\n")[0]
    return table_cell(to_markdown(first))


def _head(method: type) -> str:
    """Citation and equation from the module, then what the class says before its arguments."""
    module = inspect.getdoc(inspect.getmodule(method)) or ""
    before = re.split(r"\n\s*(?:Args|Attributes):\n", inspect.cleandoc(method.__doc__ or ""))[0]
    return f"{to_markdown(module)}\n\n**`{method.__name__}`.** {to_markdown(before)}"


def _facts(method: Any) -> str:
    hints = get_type_hints(method.__init__).get("backbone")
    backbones = get_args(hints) or ((hints,) if hints else method.admitted())
    names = ", ".join(f"`{backbone.__name__}`" for backbone in backbones)
    return (
        f"* Class path: `mu.methods.{method.__name__}`\n"
        f"* Works on: {names}\n"
        f"* Needs: {', '.join(_needs(method)) or 'nothing'}"
    )


def _needs(method: type) -> list[str]:
    needs = []
    for name in NEEDS:
        value = inspect.getattr_static(method, f"needs_{name}")
        if isinstance(value, property):
            needs.append(f"{name} (depending on the arguments)")
        elif value:
            needs.append(name)
    return needs


def _arguments_table(component: type) -> str:
    rows = [
        (
            f"`{argument.name}`",
            code_cell(argument.annotation),
            code_cell(argument.default) if argument.default else "required",
            table_cell(to_markdown(argument.description)),
        )
        for argument in arguments(component)
    ]
    return as_markdown(("argument", "type", "default", "meaning"), rows)


def _presets(presets: list[Preset]) -> str:
    if not presets:
        return "None: the defaults above are the paper's."
    return "\n\n".join(
        f"::::{{dropdown}} `configs/method/{preset.name}.yaml`: {preset.purpose}\n"
        f"```yaml\n{preset.text.rstrip()}\n```\n::::"
        for preset in presets
    )


def _results(name: str, project: Project) -> list[str]:
    """What RESULTS.md has about the method; without a row, no section."""
    parts = []
    for table in project.tables:
        rows = table.rows_of(name, project.studies)
        if rows:
            parts += [f"**{' · '.join(table.headings)}**", as_markdown(table.columns, rows)]
    if not parts:
        return ["## Measured", "Nothing yet; see [what was measured](../results.md)."]
    lead = "Command, hardware and date of each table stand in [what was measured](../results.md)."
    return ["## Measured", lead, *parts]


def _source(method: type) -> str:
    file = Path(inspect.getfile(method)).relative_to(ROOT)
    return f"::::{{dropdown}} `{file}`\n```{{literalinclude}} ../../{file}\n```\n::::"


def table_cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(text.replace("|", r"\|").split())


def code_cell(text: str) -> str:
    """Code for a cell of a Markdown table."""
    return f"`{table_cell(text)}`" if text else ""
