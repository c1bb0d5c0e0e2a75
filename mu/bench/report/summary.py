"""Means and spreads over seeds: what all tables and figures of a task show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from mu.bench.report.columns import agreed, headline
from mu.bench.report.gaps import gap_metrics, partner
from mu.bench.report.runs import ORACLE, ORIGINAL, RunEntry, TaskRuns
from mu.metrics.gap import PAPERS_FOUR, average_gap


@dataclass(frozen=True)
class Cell:
    """Mean over `count` seeds, and the sample standard deviation (None for one seed)."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Cell | None:
        """None when nothing was measured."""
        return (
            cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))
            if values
            else None
        )


@dataclass
class Row:
    """One method on one task.

    Attributes:
        method: its name.
        runs: one for each seed.
        cells: by metric, `avg_gap` (the mean of the gaps of each seed) and `seconds` among them.
        offset: by metric, the mean over seeds of (this − oracle of the same seeds), signed.
        gap_of_means: the average gap of the means, as papers report it; never larger than the mean
            of gaps.
        nothing: whether its gap is not smaller than the original's by more than the spread of that
            difference over seeds.
        best: whether its gap is the smallest of the task's methods.
        firsts: the columns in which it is the best of the task's methods, where a direction says
            what is good.
    """

    method: str
    runs: list[RunEntry]
    cells: dict[str, Cell]
    offset: dict[str, float] = field(default_factory=dict)
    gap_of_means: float | None = None
    nothing: bool = False
    best: bool = False
    firsts: set[str] = field(default_factory=set)

    @property
    def is_method(self) -> bool:
        """Neither original nor oracle."""
        return self.method not in (ORIGINAL, ORACLE)


@dataclass
class Summary:
    """A task's table.

    Attributes:
        task: its runs.
        rows: one for each method.
        columns: the headline metrics.
        others: all further ones.
        units: by metric.
        metrics: what the average gap is taken over; empty where there is none.
        better: by metric, whether higher is better; None where closeness to the oracle is the goal.
    """

    task: TaskRuns
    rows: list[Row]
    columns: list[str]
    others: list[str]
    units: dict[str, str]
    metrics: list[str]
    better: dict[str, bool | None]

    @property
    def name(self) -> str:
        """The task's."""
        return self.task.name

    def row(self, method: str) -> Row | None:
        """By name."""
        return next((row for row in self.rows if row.method == method), None)

    @property
    def directed(self) -> list[str]:
        """The columns whose values are good or bad by themselves."""
        return [name for name in self.columns if self.better.get(name) is not None]

    @property
    def last_reference(self) -> str:
        """The last row that is no method, after which a line is drawn."""
        return next((row.method for row in reversed(self.rows) if not row.is_method), "")

    @property
    def seeds(self) -> int:
        """The largest number of seeds that a method has."""
        return max(len(row.runs) for row in self.rows)


def summarise(task: TaskRuns) -> Summary:
    """Rows in the task's order, from runs whose gaps are complete.

    Raises:
        InputError: when runs disagree on a metric's unit or direction.
    """
    metrics = gap_metrics(task)
    names = list(dict.fromkeys(name for run in task.runs for name in run.values))
    columns = headline(names)
    better = agreed(task, "higher_is_better")
    units = {
        name: _gap_unit(metrics) for name in names if name.startswith("gap/") or name == "avg_gap"
    } | agreed(task, "unit")
    rows = [_row(task, method, runs, metrics) for method, runs in task.methods.items()]
    gaps = {
        row.method: row.cells["avg_gap"].mean
        for row in rows
        if row.is_method and "avg_gap" in row.cells
    }
    for row in rows:
        row.best = row.method in gaps and gaps[row.method] == min(gaps.values())
        row.nothing = row.is_method and _like_nothing(task, row.runs)
    for name in columns:
        _mark_first(rows, name, better.get(name))
    others = sorted(set(names) - set(columns) - {"avg_gap", "seconds"})
    return Summary(task, rows, columns, others, units, metrics, better)


def _mark_first(rows: Sequence[Row], metric: str, higher: bool | None) -> None:
    means = {
        row.method: row.cells[metric].mean for row in rows if row.is_method and metric in row.cells
    }
    # where all are equal, none is the best
    if higher is None or not means or (len(means) > 1 and len(set(means.values())) == 1):
        return
    first = max(means.values()) if higher else min(means.values())
    for row in rows:
        if means.get(row.method) == first:
            row.firsts.add(metric)


def _gap_unit(metrics: Sequence[str]) -> str:
    return "pp" if metrics and set(metrics) <= set(PAPERS_FOUR) else ""


def _row(task: TaskRuns, method: str, runs: list[RunEntry], metrics: Sequence[str]) -> Row:
    names = sorted({name for run in runs for name in run.values})
    cells = {
        name: Cell.of([run.values[name] for run in runs if name in run.values]) for name in names
    }
    pairs = [(run, run if method == ORACLE else partner(run, task.oracles)) for run in runs]
    paired = [(run, oracle) for run, oracle in pairs if oracle is not None]
    offset = {}
    for name in names:
        differences = [
            run.values[name] - oracle.values[name]
            for run, oracle in paired
            if name in run.values and name in oracle.values
        ]
        if differences:
            offset[name] = fmean(differences)
    known = {name: cell for name, cell in cells.items() if cell is not None}
    return Row(
        method, runs, known, offset, _gap_of_means(paired, metrics) if "avg_gap" in known else None
    )


def _gap_of_means(
    paired: Sequence[tuple[RunEntry, RunEntry]], metrics: Sequence[str]
) -> float | None:
    whole = [pair for pair in paired if all(name in run.values for run in pair for name in metrics)]
    if not whole or not metrics:
        return None
    here, there = (
        {name: fmean(pair[side].values[name] for pair in whole) for name in metrics}
        for side in (0, 1)
    )
    return float(average_gap(here, there))


def _like_nothing(task: TaskRuns, runs: Sequence[RunEntry]) -> bool:
    gained = []
    for run in runs:
        original = partner(run, task.originals)
        if original is not None and "avg_gap" in run.values and "avg_gap" in original.values:
            gained.append(original.values["avg_gap"] - run.values["avg_gap"])
    return bool(gained) and fmean(gained) <= (stdev(gained) if len(gained) > 1 else 0.0)


def number(value: float, unit: str, metric: str = "", like: float | None = None) -> str:
    """A number as a table shows it.

    Args:
        value: the number.
        unit: percent and percentage points have two decimals, everything else three significant
            digits.
        metric: counts of weights and megabytes are whole.
        like: take the decimals that this value would have (a spread has its mean's).
    """
    if metric in ("trainable", "moved", "peak_memory"):
        return f"{value:,.0f}"
    if unit in ("%", "pp"):
        return f"{value:.2f}"
    scale = abs(value if like is None else like)
    if scale and (scale < 1e-4 or scale >= 1e6):
        return f"{value:.2e}"
    return f"{value:.{min(6, max(0, 2 - math.floor(math.log10(scale)))) if scale else 2}f}"
