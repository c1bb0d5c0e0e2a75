"""Sentences of a report: the verdict above a table and the notes below it."""

from __future__ import annotations

from mu.bench.report.details import details
from mu.bench.report.format import format_number, heading, mean_with_spread
from mu.bench.report.runs import ORACLE, ORIGINAL
from mu.bench.report.summary import Summary


def footnotes(summary: Summary) -> list[str]:
    """Sentences below a task's table: seeds, gaps, goals, and how columns were measured."""
    notes = [_seeds(summary)]
    if summary.gap_metrics:
        in_unit = (
            "in percentage points"
            if summary.units.get("avg_gap") == "pp"
            else "in the metrics' own units"
        )
        notes.append(
            f"Gap: mean of |value − oracle's value| over {', '.join(summary.gap_metrics)}, each "
            f"seed with the oracle of that seed, {in_unit}; smaller is better. Gap of means: the "
            "same with means over seeds, as papers report it."
        )
    notes += _goal(summary)
    if any(row.no_better for row in summary.rows):
        notes.append(
            "≈: not closer to the oracle than the original model (no unlearning at all), within "
            "one standard deviation over seeds."
        )
    return notes + cautions(summary) + details(summary)


def cautions(summary: Summary) -> list[str]:
    """Sentences on undefined cells of the table's columns, intervals, and rates over few items."""
    columns = [*summary.columns, *(["avg_gap"] if summary.gap_metrics else [])]
    notes = []
    if any(metric in row.intervals for row in summary.rows for metric in columns):
        notes.append("[low, high]: 95 % confidence interval (Wilson) of a rate of one seed.")
    undefined: dict[str, list[str]] = {}
    for row in summary.rows:
        for metric in columns:
            if metric in row.undefined:
                name = f"{heading(metric)} of {row.method}"
                undefined.setdefault(row.undefined[metric], []).append(name)
    notes += [f"No value for {', '.join(names)}, because {why}" for why, names in undefined.items()]
    warnings: dict[str, list[str]] = {}
    for run in summary.task.runs:
        for result in run.record.results:
            if result.warning and result.metric in columns:
                warnings.setdefault(result.warning, []).append(heading(result.metric))
    return notes + [
        f"{', '.join(dict.fromkeys(names))}: {warning}" for warning, names in warnings.items()
    ]


def _seeds(summary: Summary) -> str:
    """Number of seeds, and the methods that have fewer."""
    count = summary.seeds
    fewer = [f"{row.method} {len(row.runs)}" for row in summary.rows if len(row.runs) != count]
    spread = f"Mean ± standard deviation over {count} seeds" if count > 1 else "One seed"
    return spread + (f"; fewer seeds: {', '.join(fewer)}." if fewer else ".")


def _goal(summary: Summary) -> list[str]:
    """Which values are good."""
    has_oracle = summary.row(ORACLE) is not None
    directed = summary.directed
    undirected = [name for name in summary.columns if name not in directed]
    notes = []
    if has_oracle and (undirected or not directed):
        columns = "In columns without an arrow the" if directed else "The"
        notes.append(
            f"{columns} value closest to the oracle's is the best; both higher and lower values "
            "are worse."
        )
    elif undirected or not directed:
        of_columns = f" of {', '.join(map(heading, undirected))}" if directed else ""
        notes.append(
            f"Without an oracle to compare with, no value{of_columns} is better than another."
        )
    if directed:
        notes.append("↑: higher is better; ↓: lower is better. Bold: the best of the methods.")
    return notes


def verdict(summary: Summary) -> str:
    """The table in one or two sentences: the smallest gap, or the best of each column."""
    best = next((row for row in summary.rows if row.smallest_gap), None)
    if best is None:
        return _best_of_columns(summary)
    unit = summary.units.get("avg_gap", "")
    gap = mean_with_spread(best.cells["avg_gap"], unit)
    text = f"Closest to the oracle: {best.method}, with a gap of {gap}{' ' + unit if unit else ''}"
    original = summary.row(ORIGINAL)
    if original is not None and "avg_gap" in original.cells:
        text += (
            f"; the original without unlearning: "
            f"{format_number(original.cells['avg_gap'].mean, unit)}{' ' + unit if unit else ''}"
        )
    no_better = [row.method for row in summary.rows if row.no_better]
    if no_better:
        return f"{text}. Not closer than the original, within the spread: {', '.join(no_better)}."
    return f"{text}."


def _best_of_columns(summary: Summary) -> str:
    parts = []
    for metric in summary.directed:
        rows = [row for row in summary.rows if metric in row.best_in]
        if not rows:
            continue
        unit = summary.units.get(metric, "")
        value = format_number(rows[0].cells[metric].mean, unit) + (f" {unit}" if unit else "")
        names = ", ".join(row.method for row in rows) if len(rows) < 4 else f"{len(rows)} methods"
        extreme = "highest" if summary.higher_is_better[metric] else "lowest"
        parts.append(f"{extreme} {heading(metric)} {value} ({names})")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
