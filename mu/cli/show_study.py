"""`mu show study`: keys of a study file, from its schema."""

from __future__ import annotations

import textwrap
from dataclasses import is_dataclass
from typing import Any

from mu.bench.study_schema import Entry, entries, sections, words

HEAD = """Study file of mu bench: tasks x methods x seeds, in YAML.

`mu bench --check FILE` checks one without running it, `--set KEY=VALUE` overrides any key below
(written with dots; list entries by index, suites also by class), and `mu init FOLDER` writes an
example."""


def page() -> list[str]:
    """Lines of the page."""
    lines = [HEAD]
    for key, section in sections():
        title = (section.__doc__ or "").split("\n")[0]
        lines += ["", f"{key}: {title}" if key else title]
        for entry in entries(section):
            lines.append(f"  {entry.name}: {words(entry.hint)}{default_text(entry)}")
            indent = " " * 6
            lines += textwrap.wrap(
                entry.description, 100, initial_indent=indent, subsequent_indent=indent
            )
    return lines


def default_text(entry: Entry) -> str:
    """Default of an entry behind its type; empty where leaving it out needs no value."""
    if entry.is_required:
        return "  (must be given)"
    value = plain_default(entry.default)
    return f" = {value}" if value else ""


def plain_default(value: Any) -> str:
    """A default as YAML writes it; empty for an empty one."""
    if is_dataclass(value) or value is None or value in ("", {}, []):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return str(value)
