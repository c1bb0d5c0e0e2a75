"""report.html: one page that needs nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from mu.bench.report.columns import arrow
from mu.bench.report.definitions import definitions
from mu.bench.report.figures import Curves, figures
from mu.bench.report.galleries import media
from mu.bench.report.histograms import histograms
from mu.bench.report.runs import ORACLE, ORIGINAL, Collection
from mu.bench.report.settings import data_table, overview, search_table, settings_table
from mu.bench.report.summary import Row, Summary, number
from mu.bench.report.tables import footnotes, heading
from mu.utils.errors import InputError

_DEEP = 10.0  # percentage points from the oracle at which a cell's colour is deepest


def as_html(collection: Collection, summaries: Sequence[Summary]) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    shown = {name for run in collection.runs for name in run.values}
    if any(summary.metrics for summary in summaries):
        shown |= {"avg_gap", "gap_of_means"}
    sections = [_section(summary) for summary in summaries]
    if any(
        section["histograms"] and section["histograms"].score == "confidence"
        for section in sections
    ):
        shown.add("confidence")
    shown |= {row.method for summary in summaries for row in summary.rows if not row.is_method}
    retrained = any(summary.row(ORACLE) for summary in summaries)
    if not retrained and ORIGINAL in shown:
        shown = shown - {ORIGINAL} | {"start"}
    directed = {name for summary in summaries for name in summary.directed}
    close = {
        name for summary in summaries for name in summary.columns if name not in summary.directed
    }
    environment = Environment(
        loader=PackageLoader("mu.bench.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    search = search_table(collection)
    return environment.get_template("report.html.jinja").render(
        title=collection.title,
        overview=overview(collection),
        data=data_table(collection),
        sections=sections,
        failed=collection.failed,
        notes=collection.notes,
        search=search,
        search_by=any(row["objective"] for row in search),
        retrained=retrained,
        definitions=definitions(shown, directed, close),
        runs=len(collection.runs),
        number=number,
    )


def _section(summary: Summary) -> dict[str, Any]:
    """What the template shows of a task."""
    columns = [
        *summary.columns,
        *(["avg_gap", "gap_of_means"] if summary.metrics else []),
        "seconds",
    ]
    galleries, examples = media(summary)
    return {
        "name": summary.name,
        "verdict": _verdict(summary),
        "columns": [_column(summary, name) for name in columns],
        "rows": [
            {"row": row, "cells": [_cell(summary, row, name) for name in columns]}
            for row in summary.rows
        ],
        "footnotes": footnotes(summary),
        "figures": figures(summary, _curves(summary)),
        "histograms": histograms(summary),
        "others": [_column(summary, name) for name in summary.others],
        "other_rows": [
            (row, [_cell(summary, row, name) for name in summary.others]) for row in summary.rows
        ],
        "settings": settings_table(summary.task),
        "last_reference": summary.last_reference,
        "has_oracle": summary.row(ORACLE) is not None,
        "galleries": galleries,
        "examples": examples,
    }


def _column(summary: Summary, metric: str) -> dict[str, str]:
    unit = summary.units.get(_unit_of(metric), "")
    words = [
        "" if metric.startswith("seconds") else unit,
        arrow(summary.better.get(metric)) if metric in summary.directed else "",
    ]
    return {
        "name": "Gap of means" if metric == "gap_of_means" else heading(metric),
        "unit": " ".join(word for word in words if word),
    }


def _unit_of(metric: str) -> str:
    return "avg_gap" if metric == "gap_of_means" else metric


def _cell(summary: Summary, row: Row, metric: str) -> dict[str, Any] | None:
    """Text, sort key, signed distance to the oracle and its colour; None when it was not
    measured.
    """
    unit = summary.units.get(_unit_of(metric), "")
    if metric == "gap_of_means":
        return (
            None
            if row.gap_of_means is None
            else {
                "mean": number(row.gap_of_means, unit),
                "std": "",
                "key": row.gap_of_means,
                "offset": "",
                "side": "",
                "depth": 0,
                "best": False,
            }
        )
    cell = row.cells.get(metric)
    if cell is None:
        return None
    offset = row.offset.get(metric) if metric in summary.columns and row.method != ORACLE else None
    return {
        "mean": number(cell.mean, unit, metric),
        "key": cell.mean,
        "best": (row.best and metric == "avg_gap") or metric in row.firsts,
        "std": "" if cell.std is None else number(cell.std, unit, metric, like=cell.mean),
        "offset": "" if offset is None else _signed(number(offset, unit, metric, like=cell.mean)),
        "side": "" if not offset else "above" if offset > 0 else "below",
        "depth": 0
        if not offset
        else round(100 * math.sqrt(min(1.0, abs(offset) / _full(summary, metric)))),
    }


def _signed(text: str) -> str:
    """With its sign, also when it is positive, and a real minus; what rounds to zero has none."""
    if not text.strip("-0."):
        return text.lstrip("-")
    return "−" + text[1:] if text.startswith("-") else "+" + text


def _full(summary: Summary, metric: str) -> float:
    """The distance with the deepest colour: fixed for percentages, else the largest in the
    column.
    """
    if summary.units.get(metric) == "%":
        return _DEEP
    return max(abs(row.offset.get(metric, 0.0)) for row in summary.rows)


def _verdict(summary: Summary) -> str:
    """The table in one or two sentences."""
    best = next((row for row in summary.rows if row.best), None)
    original = summary.row(ORIGINAL)
    if best is None:
        return _bests(summary)
    unit = summary.units.get("avg_gap", "")
    gap = best.cells["avg_gap"]
    spread = "" if gap.std is None else f" ± {number(gap.std, unit)}"
    text = f"Closest to the oracle: {best.method}, gap {number(gap.mean, unit)}{spread}{' ' + unit if unit else ''}"
    if original is not None and "avg_gap" in original.cells:
        text += f"; doing nothing: {number(original.cells['avg_gap'].mean, unit)}"
    idle = [row.method for row in summary.rows if row.nothing]
    return (
        text
        + "."
        + (f" No closer than doing nothing, within the spread: {', '.join(idle)}." if idle else "")
    )


def _bests(summary: Summary) -> str:
    """Without gaps: who is best in which column."""
    found = []
    for name in summary.directed:
        rows = [row for row in summary.rows if name in row.firsts]
        if rows:
            unit = summary.units.get(name, "")
            who = ", ".join(row.method for row in rows) if len(rows) < 4 else f"{len(rows)} methods"
            value = number(rows[0].cells[name].mean, unit, name) + (f" {unit}" if unit else "")
            found.append(
                f"{'highest' if summary.better[name] else 'lowest'} {heading(name)} {value} ({who})"
            )
    text = "; ".join(found)
    return f"{text[:1].upper()}{text[1:]}." if found else ""


def _curves(summary: Summary) -> Curves:
    """`curves.json` of the runs that have one."""
    from mu.utils.files import read_json

    found: dict[str, list[Any]] = {}
    for row in summary.rows:
        for run in row.runs:
            file = run.folder / "curves.json"
            if row.is_method and file.is_file():
                rows = read_json(file)
                if not isinstance(rows, list) or not all(
                    isinstance(each, dict) and "step" in each for each in rows
                ):
                    raise InputError(
                        f"{file} is not a list of rows with a step, as the Curves callback "
                        f"writes: {json.dumps(rows)[:60]}."
                    )
                found.setdefault(row.method, []).append(rows)
    return found
