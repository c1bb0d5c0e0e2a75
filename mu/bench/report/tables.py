"""The numbers as files and on the terminal: results.csv, tables.tex, and a rich table for each
task.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mu.bench.report.columns import arrow
from mu.bench.report.details import details
from mu.bench.report.runs import ORACLE, SEED_NAMES, Collection
from mu.bench.report.summary import Cell, Row, Summary, number

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FIRST = ("UA", "RA", "TA", "MIA", "avg_gap", "seconds")
"""Columns with which results.csv begins, after task, method and seeds, wherever closeness to the
oracle is the goal.
"""


def as_csv(collection: Collection, summaries: Sequence[Summary]) -> str:
    """One line for each run, in full precision; an empty cell where a run did not measure."""
    first = _first(summaries)
    others = sorted({name for run in collection.runs for name in run.values} - set(first))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "method", *(f"{name}_seed" for name in SEED_NAMES), *first, *others])
    for task in collection.tasks:
        for run in task.runs:
            seeds = [run.record.seeds.get(name, "") for name in SEED_NAMES]
            values = [
                repr(run.values[name]) if name in run.values else "" for name in (*first, *others)
            ]
            writer.writerow([task.name, run.method, *seeds, *values])
    return text.getvalue()


def _first(summaries: Sequence[Summary]) -> list[str]:
    """The headline columns.

    Where values are good by themselves, those of the table; elsewhere always the same, so that
    files of several studies can be joined.
    """
    own = [
        summary
        for summary in summaries
        if summary.directed and ("UA" in summary.directed or summary.directed == summary.columns)
    ]
    names = [name for summary in own for name in summary.columns]
    fixed = len(own) < max(1, len(summaries))
    gap = ["avg_gap"] if fixed or any(summary.metrics for summary in summaries) else []
    return list(dict.fromkeys([*(FIRST[:-2] if fixed else ()), *names, *gap, "seconds"]))


def heading(metric: str) -> str:
    """A column's title: `Gap` and `MAE forget` for people; the unit stands beside it."""
    return {"avg_gap": "Gap", "MIA/error_member": "MIA member"}.get(
        metric, metric.replace("/", " ")
    )


def with_spread(cell: Cell, unit: str, metric: str, join: str = " ± ") -> str:
    """`mean ± std`, or the mean alone for one seed."""
    mean = number(cell.mean, unit, metric)
    return (
        mean
        if cell.std is None
        else f"{mean}{join}{number(cell.std, unit, metric, like=cell.mean)}"
    )


def footnotes(summary: Summary) -> list[str]:
    """What must stand under a table of this task, in plain sentences."""
    most = summary.seeds
    fewer = [f"{row.method} {len(row.runs)}" for row in summary.rows if len(row.runs) != most]
    notes = [
        (f"Mean ± sample standard deviation over {most} seeds" if most > 1 else "One seed")
        + (f" (but {', '.join(fewer)})." if fewer else ".")
    ]
    if summary.metrics:
        where = (
            "in percentage points"
            if summary.units.get("avg_gap") == "pp"
            else "in the metrics' own units"
        )
        notes.append(
            f"Gap: mean distance over {', '.join(summary.metrics)} to the oracle of the same "
            f"seeds, {where}; smaller is better. Gap of means: the same from means over seeds, as "
            "papers report it."
        )
    notes += _goal(summary)
    if any(row.nothing for row in summary.rows):
        notes.append(
            "≈: no closer to the oracle than the original is (doing nothing), by more than one "
            "standard deviation over seeds."
        )
    return notes + details(summary)


def _goal(summary: Summary) -> list[str]:
    """Which values are good."""
    oracle = summary.row(ORACLE) is not None
    directed = summary.directed
    others = [name for name in summary.columns if name not in directed]
    notes = []
    if oracle and (others or not directed):
        where = " where a column has no arrow" if directed else ""
        notes.append(
            f"Closeness to the oracle is the goal{where}: neither high nor low values are good by "
            "themselves."
        )
    elif others or not directed:
        of = f" of {', '.join(map(heading, others))}" if directed else ""
        notes.append(f"There is no oracle, so nothing says which values{of} are good.")
    if directed:
        notes.append("↑: higher is better; ↓: lower is better. Bold: the best of the methods.")
    return notes


def print_tables(summaries: Sequence[Summary], console: Console) -> None:
    """Each task's table on the terminal, and its footnotes: once, when all have the same."""
    from rich.text import Text

    notes = [footnotes(summary) for summary in summaries]
    alike = all(each == notes[-1] for each in notes)
    for summary, each in zip(summaries, notes, strict=True):
        print_table(summary, console)
        if not alike or summary is summaries[-1]:
            console.print(*(Text(note, style="dim") for note in each), "", sep="\n")


def print_table(summary: Summary, console: Console) -> None:
    """The task's table on the terminal; where it is too wide for one line a cell, spreads stand
    below their means.
    """
    table = _table(summary, " ± ")
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.print(table if needed <= console.width else _table(summary, "\n± "))


def _table(summary: Summary, join: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    narrow = "\n" in join
    table = Table(
        title=Text(summary.name, style="bold"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        collapse_padding=narrow,
    )
    table.add_column("method", overflow="fold")
    columns = [*summary.columns, *(["avg_gap"] if summary.metrics else [])]
    for name in columns:
        table.add_column(_with_unit(summary, name), justify="right")
    if summary.metrics:
        table.add_column("Gap of\nmeans" if narrow else "Gap of means", justify="right")
    table.add_column("seconds", justify="right")
    for row in summary.rows:
        style = "dim" if row.nothing else ""
        cells = [Text(_cell(row, name, summary, join), style=_bold(row, name)) for name in columns]
        means = [
            Text(
                "–"
                if row.gap_of_means is None
                else number(row.gap_of_means, summary.units.get("avg_gap", ""))
            )
        ]
        name = Text(f"{row.method} ≈" if row.nothing else row.method, style=_bold(row, "avg_gap"))
        table.add_row(
            name,
            *cells,
            *(means if summary.metrics else []),
            _cell(row, "seconds", summary, join),
            style=style,
            end_section=row.method == summary.last_reference,
        )
    return table


def _bold(row: Row, metric: str) -> str:
    return "bold" if (row.best and metric == "avg_gap") or metric in row.firsts else ""


def _with_unit(summary: Summary, metric: str) -> str:
    unit = summary.units.get(metric, "")
    direction = arrow(summary.better.get(metric)) if metric in summary.directed else ""
    return " ".join(
        word for word in (heading(metric), unit if unit in ("%", "pp") else "", direction) if word
    )


def _cell(row: Row, metric: str, summary: Summary, join: str) -> str:
    cell = row.cells.get(metric)
    return "–" if cell is None else with_spread(cell, summary.units.get(metric, ""), metric, join)


# ---- LaTeX ---------------------------------------------------------------------------------------

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def latex(text: str) -> str:
    """Text in which nothing is a command."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def as_tex(summaries: Sequence[Summary]) -> str:
    """A table for each task in the style of the papers: `value (gap)`, the average gap of means,
    and the run time.
    """
    alone = any(summary.directed for summary in summaries) and not any(
        summary.row(ORACLE) for summary in summaries
    )
    value = (
        "Bold: the best of the methods"
        if alone
        else "Value (distance of the mean to the oracle's mean)"
    )
    head = f"% Needs \\usepackage{{booktabs}}. {value}; made by mu report.\n"
    return head + "".join(f"\n{_tabular(summary)}" for summary in summaries)


def _tabular(summary: Summary) -> str:
    names = [_tex_heading(summary, name) for name in summary.columns]
    gap = ["Avg. Gap"] if summary.metrics else []
    best = min(
        (
            row.gap_of_means
            for row in summary.rows
            if row.is_method and row.gap_of_means is not None
        ),
        default=None,
    )
    lines = [" & ".join([r"\textbf{Method}", *names, *gap, "RTE (s)"]) + r" \\", r"\midrule"]
    for row in summary.rows:
        cells = [_tex_value(row, name, summary) for name in summary.columns]
        mean = (
            "--"
            if row.gap_of_means is None
            else number(row.gap_of_means, summary.units.get("avg_gap", ""))
        )
        if best is not None and row.is_method and row.gap_of_means == best:
            mean = rf"\textbf{{{mean}}}"
        seconds = row.cells.get("seconds")
        time = number(seconds.mean, "s") if seconds else "--"
        lines.append(
            " & ".join([latex(row.method), *cells, *([mean] if gap else []), time]) + r" \\"
        )
        if row.method == summary.last_reference:
            lines.append(r"\midrule")
    seeds = f"mean over {summary.seeds} seeds" if summary.seeds > 1 else "one seed"
    rest = (
        "; in parentheses the distance to the oracle, whose closeness is the goal."
        if summary.row(ORACLE)
        else "."
    )
    width = len(names) + len(gap) + 1
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{latex(summary.name)}: {seeds}{rest}}}",
            rf"\begin{{tabular}}{{l{'r' * width}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _tex_heading(summary: Summary, name: str) -> str:
    up = summary.better.get(name)
    direction = "" if up is None else r" $\uparrow$" if up else r" $\downarrow$"
    return latex(heading(name)) + (r" (\%)" if summary.units.get(name) == "%" else "") + direction


def _tex_value(row: Row, metric: str, summary: Summary) -> str:
    cell = row.cells.get(metric)
    unit = summary.units.get(metric, "")
    if cell is None:
        return "--"
    spread = (
        "" if cell.std is None else rf"_{{\pm {number(cell.std, unit, metric, like=cell.mean)}}}"
    )
    gap = (
        f" ({number(abs(row.offset[metric]), unit, metric, like=cell.mean)})"
        if metric in row.offset and row.method != ORACLE
        else ""
    )
    value = f"{number(cell.mean, unit, metric)}{spread}"
    return (rf"$\mathbf{{{value}}}$" if metric in row.firsts else f"${value}$") + gap
