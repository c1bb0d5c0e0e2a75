"""Rows of RESULTS.md by method."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

REFERENCES = ("original", "oracle")
_STUDY = re.compile(r"configs/bench/(\w+\.yaml)")


@dataclass(frozen=True)
class Table:
    """A Markdown table whose first column names methods.

    Attributes:
        headings: the headings above the table, from the second level down, then its caption.
        studies: files of configs/bench that the section names before the table.
        columns: the titles.
        rows: the cells of each row.
    """

    headings: tuple[str, ...]
    studies: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def rows_of(self, method: str, studies: Mapping[str, Mapping[str, str]]) -> list[tuple]:
        """The method's rows, preceded by those of original and oracle; empty without the former.

        Args:
            method: name of the class.
            studies: by file, the class of each name that the study gives a method.
        """
        matches = []
        for row in self.rows:
            name = re.split(r"[ ,(]", row[0].strip("`"))[0]
            classes = [studies[study].get(name, name) for study in self.studies if study in studies]
            if (classes or [name])[-1] == method:
                matches.append(row)
        if not matches:
            return []
        return [row for row in self.rows if row[0].lower() in REFERENCES] + matches


def tables(markdown: str) -> list[Table]:
    """All tables of a file whose first column is headed `method` or `run`."""
    collected = []
    headings: dict[int, str] = {}
    studies: list[str] = []
    caption = ""
    block: list[str] = []
    for line in [*markdown.split("\n"), ""]:
        if line.startswith("|"):
            block.append(line)
            continue
        # a table ends
        if len(block) > 2 and _cells(block[0])[0] in ("method", "run"):
            levels = [headings[level] for level in sorted(headings)]
            rows = tuple(_cells(row) for row in block[2:])
            titles = (*levels, caption) if caption else tuple(levels)
            collected.append(Table(titles, tuple(studies), _cells(block[0]), rows))
        block = []
        # a section begins, or a study is named
        title = re.match(r"(##+) (.*)", line)
        if title:
            level = len(title[1])
            headings = {depth: text for depth, text in headings.items() if depth < level}
            headings[level] = title[2]
            studies = [] if level == 2 else studies
            caption = ""
        studies += _STUDY.findall(line)
        named = re.match(r"(Task \w+)|(Forget [^:.]*):$", line)
        if named:
            caption = named[1] or named[2]
    return collected


def as_markdown(columns: tuple[str, ...], rows: list[tuple]) -> str:
    """A Markdown table."""
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
