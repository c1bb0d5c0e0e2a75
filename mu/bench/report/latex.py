"""tables.tex: one LaTeX table for each task, in the papers' style."""

from __future__ import annotations

from mu.bench.report.contents import Report, TableRow, TaskReport
from mu.bench.report.format import Column
from mu.bench.report.summary import GAP_OF_MEANS

_COMMANDS = {
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
_ARROWS = {"": "", "↑": r" $\uparrow$", "↓": r" $\downarrow$"}
_MISSING = "--"


def escape(text: str) -> str:
    r"""Text in which no character is a LaTeX command.

    Example:
        >>> escape("100 % of x_1")
        '100 \\% of x\\_1'
    """
    return "".join(_COMMANDS.get(letter, letter) for letter in text)


def as_tex(report: Report) -> str:
    """Text of tables.tex: `value (distance)`, the average gap of means, and the run time."""
    value = (
        "Bold: the best of the methods"
        if report.directed and not report.has_oracle
        else "Value (distance of the mean to the oracle's mean)"
    )
    head = f"% Needs \\usepackage{{booktabs}}. {value}; made by mu report.\n"
    return head + "".join(f"\n{_table(task)}" for task in report.tasks)


def _table(task: TaskReport) -> str:
    has_gap = any(column.metric == GAP_OF_MEANS for column in task.columns)
    names = [_heading(column) for column in task.headline]
    headings = [r"\textbf{Method}", *names, *(["Avg. Gap"] if has_gap else []), "RTE (s)"]
    lines = [" & ".join(headings) + r" \\", r"\midrule"]
    for row in task.rows:
        cells = [_value(row, column.metric) for column in task.headline]
        gap = [_gap_of_means(row)] if has_gap else []
        lines.append(" & ".join([escape(row.method), *cells, *gap, _seconds(row)]) + r" \\")
        if row.ends_references:
            lines.append(r"\midrule")
    seeds = f"mean over {task.seeds} seeds" if task.seeds > 1 else "one seed"
    rest = (
        "; in parentheses the distance to the oracle, whose closeness is the goal."
        if task.has_oracle
        else "."
    )
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{escape(task.name)}: {seeds}{rest}{_undefined_and_few(task)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(headings) - 1)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _undefined_and_few(task: TaskReport) -> str:
    """Sentences on undefined cells, intervals and rates over few items, for the caption."""
    return "".join(f" {escape(note)}" for note in task.cautions)


def _heading(column: Column) -> str:
    unit = r" (\%)" if column.unit == "%" else ""
    return escape(column.heading) + unit + _ARROWS[column.direction]


def _value(row: TableRow, metric: str) -> str:
    cell = row.cells[metric]
    if cell is None:
        return _MISSING
    if cell.reason:
        return cell.mean
    spread = rf"_{{\pm {cell.std}}}" if cell.std else ""
    value = f"{cell.mean}{spread}"
    distance = f" ({cell.distance})" if cell.offset else ""
    interval = rf" {{\scriptsize {cell.interval}}}" if cell.interval else ""
    return (rf"$\mathbf{{{value}}}$" if cell.best else f"${value}$") + distance + interval


def _gap_of_means(row: TableRow) -> str:
    cell = row.cells[GAP_OF_MEANS]
    if cell is None:
        return _MISSING
    return rf"\textbf{{{cell.mean}}}" if row.smallest_gap_of_means else cell.mean


def _seconds(row: TableRow) -> str:
    cell = row.cells["seconds"]
    return _MISSING if cell is None else cell.mean
