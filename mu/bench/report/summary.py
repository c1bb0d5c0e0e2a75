"""Means and spreads over seeds, for all tables and figures of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from mu.bench.report.columns import OF_REPORT, agreed, headline
from mu.bench.report.gaps import gap_metrics, partner
from mu.bench.report.runs import ORACLE, ORIGINAL, RunEntry, TaskRuns
from mu.metrics.gap import average_gap
from mu.metrics.results import Presentation, TradeOff

GAP_OF_MEANS = "gap_of_means"
"""Column of the average gap between means over seeds."""


@dataclass(frozen=True)
class Cell:
    """Mean over `count` seeds, and the sample standard deviation (None for one seed)."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def from_values(cls, values: Sequence[float]) -> Cell | None:
        """Cell of one value for each seed; None when there are none."""
        if not values:
            return None
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


@dataclass
class Row:
    """One method on one task.

    Attributes:
        method: name of the method.
        runs: one for each seed.
        cells: by metric, `avg_gap` (the mean of the gaps of each seed) and `seconds` among them.
        offsets: by metric, the mean over seeds of (this − oracle of the same seeds), signed.
        gap_of_means: the average gap of the means, as papers report it; never larger than the mean
            of gaps.
        no_better: whether its gap is not smaller than the original's by more than the spread of
            that difference over seeds.
        smallest_gap: whether its gap is the smallest of the task's methods.
        best_in: the columns in which it is the best of the task's methods, among those with a
            direction.
        undefined: by metric without a value in some of the runs, the reason.
        intervals: by rate, the 95 % interval, where there is one run.
    """

    method: str
    runs: list[RunEntry]
    cells: dict[str, Cell]
    offsets: dict[str, float] = field(default_factory=dict)
    gap_of_means: float | None = None
    no_better: bool = False
    smallest_gap: bool = False
    best_in: set[str] = field(default_factory=set)
    undefined: dict[str, str] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def is_method(self) -> bool:
        """Neither original nor oracle."""
        return self.method not in (ORIGINAL, ORACLE)


@dataclass
class Summary:
    """Numbers of a task's table.

    Attributes:
        task: runs of the task.
        rows: one for each method.
        columns: the headline metrics.
        further: all further metrics.
        units: by metric.
        gap_metrics: metrics of the average gap; empty where there is none.
        higher_is_better: by metric; None where closeness to the oracle is the goal.
        trade_offs: scatter plots that the suites declare.
    """

    task: TaskRuns
    rows: list[Row]
    columns: list[str]
    further: list[str]
    units: dict[str, str]
    gap_metrics: list[str]
    higher_is_better: dict[str, bool | None]
    trade_offs: list[TradeOff]

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task.name

    def row(self, method: str) -> Row | None:
        """Row of a method; None when it was not run."""
        return next((row for row in self.rows if row.method == method), None)

    @property
    def directed(self) -> list[str]:
        """Columns whose values are good or bad by themselves."""
        return [name for name in self.columns if self.higher_is_better.get(name) is not None]

    @property
    def last_reference(self) -> str:
        """Last row that is no method, after which a line is drawn."""
        return next((row.method for row in reversed(self.rows) if not row.is_method), "")

    @property
    def seeds(self) -> int:
        """Largest number of seeds of a method."""
        return max(len(row.runs) for row in self.rows)


def summarise(task: TaskRuns) -> Summary:
    """Rows in the task's order, from runs whose gaps are complete.

    Raises:
        InputError: when runs disagree on a metric's unit or direction.
    """
    # columns, directions and units
    metrics = list(dict.fromkeys(metric for run in task.runs for metric in run.metrics))
    presentation = Presentation.merged(run.record.presentation for run in task.runs)
    columns = headline(metrics, presentation)
    higher_is_better = agreed(task, "higher_is_better")
    units = agreed(task, "unit")
    averaged = gap_metrics(task)
    gap_unit = "pp" if averaged and all(units.get(name) == "%" for name in averaged) else ""
    gaps = [metric for metric in metrics if metric.startswith("gap/") or metric == "avg_gap"]
    units = dict.fromkeys(gaps, gap_unit) | units
    # rows and the best of them
    rows = [_row(task, method, runs, averaged) for method, runs in task.methods.items()]
    means = [row.cells["avg_gap"].mean for row in rows if row.is_method and "avg_gap" in row.cells]
    for row in rows:
        gap = row.cells.get("avg_gap")
        row.smallest_gap = row.is_method and gap is not None and gap.mean == min(means)
        row.no_better = row.is_method and _like_original(task, row.runs)
    for metric in columns:
        _mark_best(rows, metric, higher_is_better.get(metric))
    further = sorted(set(metrics) - set(columns) - OF_REPORT)
    return Summary(
        task,
        rows,
        columns,
        further,
        units,
        averaged,
        higher_is_better,
        presentation.trade_offs,
    )


def _mark_best(rows: Sequence[Row], metric: str, higher_is_better: bool | None) -> None:
    means = {
        row.method: row.cells[metric].mean for row in rows if row.is_method and metric in row.cells
    }
    # where all are equal, none is the best
    if higher_is_better is None or not means or (len(means) > 1 and len(set(means.values())) == 1):
        return
    best = max(means.values()) if higher_is_better else min(means.values())
    for row in rows:
        if means.get(row.method) == best:
            row.best_in.add(metric)


def _row(task: TaskRuns, method: str, runs: list[RunEntry], averaged: Sequence[str]) -> Row:
    metrics = sorted({metric for run in runs for metric in run.values})
    undefined = _undefined(runs)
    cells: dict[str, Cell] = {}
    for metric in metrics:
        # a mean over the other seeds would be one over chosen seeds
        if metric in undefined:
            continue
        cell = Cell.from_values([run.values[metric] for run in runs if metric in run.values])
        if cell is not None:
            cells[metric] = cell
    pairs = _with_oracles(task, method, runs)
    gap_of_means = _gap_of_means(pairs, averaged) if "avg_gap" in cells else None
    return Row(
        method,
        runs,
        cells,
        _offsets(pairs, metrics),
        gap_of_means,
        undefined=undefined,
        intervals=_intervals(runs),
    )


def _undefined(runs: Sequence[RunEntry]) -> dict[str, str]:
    """Reason by metric that is undefined in some runs, with their number where it is not all."""
    reasons: dict[str, str] = {}
    for metric in dict.fromkeys(metric for run in runs for metric in run.undefined):
        sentences = [run.undefined[metric] for run in runs if metric in run.undefined]
        some = f"in {len(sentences)} of {len(runs)} seeds, " if len(sentences) < len(runs) else ""
        reasons[metric] = some + sentences[0]
    return reasons


def _intervals(runs: Sequence[RunEntry]) -> dict[str, tuple[float, float]]:
    if len(runs) != 1:
        return {}
    return {
        result.metric: result.interval
        for result in runs[0].record.results
        if result.interval is not None
    }


def _with_oracles(
    task: TaskRuns, method: str, runs: Sequence[RunEntry]
) -> list[tuple[RunEntry, RunEntry]]:
    """Each run and the oracle of its seeds, where there is one; an oracle with itself."""
    pairs = [(run, run if method == ORACLE else partner(run, task.oracles)) for run in runs]
    return [(run, oracle) for run, oracle in pairs if oracle is not None]


def _offsets(
    pairs: Sequence[tuple[RunEntry, RunEntry]], metrics: Sequence[str]
) -> dict[str, float]:
    offsets = {}
    for metric in metrics:
        differences = [
            run.values[metric] - oracle.values[metric]
            for run, oracle in pairs
            if metric in run.values and metric in oracle.values
        ]
        if differences:
            offsets[metric] = fmean(differences)
    return offsets


def _gap_of_means(
    pairs: Sequence[tuple[RunEntry, RunEntry]], averaged: Sequence[str]
) -> float | None:
    complete = [
        pair for pair in pairs if all(metric in run.values for run in pair for metric in averaged)
    ]
    if not complete or not averaged:
        return None
    means, oracle_means = (
        {metric: fmean(pair[side].values[metric] for pair in complete) for metric in averaged}
        for side in (0, 1)
    )
    return float(average_gap(means, oracle_means))


def _like_original(task: TaskRuns, runs: Sequence[RunEntry]) -> bool:
    """Whether the gap is no smaller than the original's, within one standard deviation."""
    gains = []
    for run in runs:
        original = partner(run, task.originals)
        if original is not None and "avg_gap" in run.values and "avg_gap" in original.values:
            gains.append(original.values["avg_gap"] - run.values["avg_gap"])
    return bool(gains) and fmean(gains) <= (stdev(gains) if len(gains) > 1 else 0.0)
