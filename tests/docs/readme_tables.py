"""Tables of the README, from the catalogue; `python -m tests.docs.readme_tables` writes them."""

from __future__ import annotations

from collections import defaultdict

from mu.cli.catalogue import Sources
from tests.contract.catalogue import METHODS, PAIRS
from tests.docs.conftest import ROOT

README = ROOT / "README.md"
BEGIN = "<!-- tables of the catalogue -->"
END = "<!-- end of the tables -->"
DOMAINS = {
    "classifier": "classifier",
    "regressor": "regressor",
    "class_conditional": "class-conditional diffusion",
    "text_to_image": "text-to-image",
    "causal_lm": "language model",
}
"""Heading of each backbone of the contract tests."""


def method_table() -> list[str]:
    """Methods by the backbones on which the contract tests run them."""
    backbones: defaultdict[str, set[str]] = defaultdict(set)
    for name, backbone_name in PAIRS:
        if ".compat." not in METHODS[name].__module__:
            backbones[name].add(backbone_name)
    rows: defaultdict[tuple[bool, ...], list[str]] = defaultdict(list)
    for name in sorted(backbones, key=str.lower):
        rows[tuple(domain in backbones[name] for domain in DOMAINS)].append(name)
    lines = [
        f"| methods | {' | '.join(DOMAINS.values())} |",
        "|---|" + ":-:|" * len(DOMAINS),
    ]
    for marks in sorted(rows, key=lambda marks: (-sum(marks), [not mark for mark in marks])):
        cells = ["✓" if mark else "" for mark in marks]
        lines.append(f"| {', '.join(rows[marks])} | {' | '.join(cells)} |")
    return lines


def class_table() -> list[str]:
    """Tasks, suites, attacks and studies, by name."""
    sources = Sources(ROOT / "configs")
    names = {
        title: [component.name for component in sources.components(category)]
        for title, category in (
            ("tasks", "tasks"),
            ("suites", "suites"),
            ("attacks on pixels and prompts", "attacks"),
        )
    }
    studies = sorted(file.stem for file in (ROOT / "configs/bench").glob("*.yaml"))
    rows = {**names, "studies (`configs/bench`)": studies}
    return [
        "| | |",
        "|---|---|",
        *(f"| {title} | {', '.join(row)} |" for title, row in rows.items()),
    ]


def tables() -> str:
    """Both tables, as they stand in the README between the markers."""
    return "\n".join([BEGIN, *method_table(), "", *class_table(), END])


def with_tables(text: str) -> str:
    """A README whose tables are those of the catalogue."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + tables() + after


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
