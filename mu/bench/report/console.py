"""Tables of a report on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mu.bench.report.contents import Report, TableRow, TaskReport
from mu.bench.report.format import MISSING, PERCENT, Column
from mu.bench.report.summary import GAP_OF_MEANS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


def print_report(report: Report, console: Console, with_missing: bool = True) -> None:
    """Print each task's table and footnotes (once, when all have the same), and notes.

    Args:
        report: what is printed.
        console: where.
        with_missing: name the missing runs one by one, not only their number.
    """
    from rich.text import Text

    same = all(task.footnotes == report.tasks[-1].footnotes for task in report.tasks)
    for task in report.tasks:
        _print_table(task, console)
        if not same or task is report.tasks[-1]:
            console.print(*(Text(note, style="dim") for note in task.footnotes), "", sep="\n")
    missing = [f"missing: {run.label}: {run.sentence}" for run in report.missing]
    if missing and not with_missing:
        missing = [f"{len(missing)} runs are missing; the page names them."]
    for line in [*missing, *report.notes]:
        console.print(line, markup=False, highlight=False)


def _print_table(task: TaskReport, console: Console) -> None:
    """One line a cell, or spreads below their means where the table would be too wide."""
    table = _table(task, " ")
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.print(table if needed <= console.width else _table(task, "\n"))


def _table(task: TaskReport, separator: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    narrow = separator == "\n"
    table = Table(
        title=Text(task.name, style="bold"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        collapse_padding=narrow,
    )
    table.add_column("method", overflow="fold")
    for column in task.columns:
        table.add_column(Text(_heading(column, narrow)), justify="right")
    for row in task.rows:
        name = f"{row.method} ≈" if row.no_better else row.method
        table.add_row(
            Text(name, style="bold" if row.smallest_gap else ""),
            *(_cell(row, column.metric, separator) for column in task.columns),
            style="dim" if row.no_better else "",
            end_section=row.ends_references,
        )
    return table


def _cell(row: TableRow, metric: str, separator: str) -> Text:
    from rich.text import Text

    cell = row.cells[metric]
    if cell is None:
        return Text(MISSING)
    return Text(cell.with_spread(separator), style="bold" if cell.best else "")


def _heading(column: Column, narrow: bool) -> str:
    if column.metric == GAP_OF_MEANS:
        return "Gap of\nmeans" if narrow else column.heading
    unit = column.unit if column.unit in PERCENT else ""
    return " ".join(word for word in (column.heading, unit, column.direction) if word)
