"""Contents of a report as one value, which CSV, LaTeX, console and HTML only read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu.bench.report import definitions
from mu.bench.report.curves import load_curves
from mu.bench.report.figures import DrawnFigure, figures
from mu.bench.report.format import Column, FormattedCell, format_cell, format_column
from mu.bench.report.galleries import Examples, Gallery, media
from mu.bench.report.gaps import complete
from mu.bench.report.histograms import Grid, histograms
from mu.bench.report.notes import cautions, footnotes, verdict
from mu.bench.report.run_table import run_table
from mu.bench.report.runs import ORACLE, ORIGINAL, Collection, MissingRun, collect
from mu.bench.report.settings import data_table, overview, search_table, settings_table
from mu.bench.report.summary import GAP_OF_MEANS, Row, Summary, summarise


@dataclass(frozen=True)
class TableRow:
    """One method's row of a task's tables.

    Attributes:
        method: name of the method.
        cells: by metric; None where it was not measured.
        is_method: neither original nor oracle.
        no_better: whether its gap is no smaller than the original's.
        smallest_gap: whether its gap is the smallest of the task's methods.
        smallest_gap_of_means: likewise for the gap of means.
        ends_references: whether it is the last row before the methods.
    """

    method: str
    cells: dict[str, FormattedCell | None]
    is_method: bool
    no_better: bool
    smallest_gap: bool
    smallest_gap_of_means: bool
    ends_references: bool


@dataclass(frozen=True)
class TaskReport:
    """Section of a report: one task.

    Attributes:
        name: name of the task.
        verdict: the table in one or two sentences; empty when nothing can be said.
        headline: columns that the suites declare.
        columns: the headline, the gaps where there are any, and seconds.
        further: columns of all further metrics.
        rows: one for each method, with a cell for every column.
        seeds: largest number of seeds of a method.
        has_oracle: whether an oracle was measured.
        directed: whether some column's values are good or bad by themselves.
        footnotes: sentences below the table.
        cautions: those of them on undefined cells, intervals, and rates over few items.
        figures: scatter plots, bars and curves.
        histograms: distributions of a per-example score; None where no run has outputs.
        galleries: images of every model side by side.
        examples: texts of every model side by side.
        settings: method and its settings, one text for each variant.
    """

    name: str
    verdict: str
    headline: list[Column]
    columns: list[Column]
    further: list[Column]
    rows: list[TableRow]
    seeds: int
    has_oracle: bool
    directed: bool
    footnotes: list[str]
    cautions: list[str]
    figures: list[DrawnFigure]
    histograms: Grid | None
    galleries: list[Gallery]
    examples: list[Examples]
    settings: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Report:
    """Everything that a report shows, formatted.

    Attributes:
        title: title of the study, or the folder's name.
        runs: number of runs.
        overview: terms and values: how, with what and on what everything was run.
        data: one entry for each task: class, forget set, sizes.
        tasks: one section for each task.
        search: one entry for each method whose settings were searched.
        missing: runs of the studies that failed, or have not run.
        notes: sentences on runs left out and gaps that could not be taken.
        definitions: heading and sentence of each metric.
        run_columns: header of the table of single runs.
        run_rows: its lines: names, seeds, values in full precision (empty where a run did not
            measure, nan where it is undefined), ends of intervals, and remarks.
    """

    title: str
    runs: int
    overview: list[tuple[str, list[str]]]
    data: list[dict[str, Any]]
    tasks: list[TaskReport]
    search: list[dict[str, Any]]
    missing: list[MissingRun]
    notes: list[str]
    definitions: list[tuple[str, str]]
    run_columns: list[str]
    run_rows: list[list[str]]

    @property
    def has_oracle(self) -> bool:
        """Whether some task has an oracle."""
        return any(task.has_oracle for task in self.tasks)

    @property
    def directed(self) -> bool:
        """Whether some task has a column whose values are good or bad by themselves."""
        return any(task.directed for task in self.tasks)


def make_report(folders: Sequence[Path]) -> Report:
    """Contents of the report of the runs below some folders.

    Raises:
        InputError: when there is nothing to report, or runs cannot be compared (different splits or
            recipes).
    """
    collection = collect(folders)
    for task in collection.tasks:
        collection.notes += complete(task)
    summaries = [summarise(task) for task in collection.tasks]
    tasks = [_task_report(summary) for summary in summaries]
    columns = _value_columns(collection, summaries)
    run_columns, run_rows = run_table(collection, columns)
    return Report(
        title=collection.title,
        runs=len(collection.runs),
        overview=overview(collection),
        data=data_table(collection),
        tasks=tasks,
        search=search_table(collection),
        missing=collection.missing,
        notes=collection.notes,
        definitions=_definitions(collection, summaries, tasks),
        run_columns=run_columns,
        run_rows=run_rows,
    )


def _task_report(summary: Summary) -> TaskReport:
    headline = [format_column(summary, metric) for metric in summary.columns]
    gaps = ["avg_gap", GAP_OF_MEANS] if summary.gap_metrics else []
    columns = [*headline, *(format_column(summary, metric) for metric in (*gaps, "seconds"))]
    further = [format_column(summary, metric) for metric in summary.further]
    galleries, examples = media(summary)
    return TaskReport(
        name=summary.name,
        verdict=verdict(summary),
        headline=headline,
        columns=columns,
        further=further,
        rows=_rows(summary, [column.metric for column in (*columns, *further)]),
        seeds=summary.seeds,
        has_oracle=summary.row(ORACLE) is not None,
        directed=bool(summary.directed),
        footnotes=footnotes(summary),
        cautions=cautions(summary),
        figures=figures(summary, load_curves(summary)),
        histograms=histograms(summary),
        galleries=galleries,
        examples=examples,
        settings=settings_table(summary.task),
    )


def _rows(summary: Summary, metrics: Sequence[str]) -> list[TableRow]:
    gaps = [row.gap_of_means for row in summary.rows if row.is_method]
    smallest = min((gap for gap in gaps if gap is not None), default=None)

    def table_row(row: Row) -> TableRow:
        return TableRow(
            method=row.method,
            cells={metric: format_cell(summary, row, metric) for metric in metrics},
            is_method=row.is_method,
            no_better=row.no_better,
            smallest_gap=row.smallest_gap,
            smallest_gap_of_means=row.is_method
            and row.gap_of_means is not None
            and row.gap_of_means == smallest,
            ends_references=row.method == summary.last_reference,
        )

    return [table_row(row) for row in summary.rows]


def _value_columns(collection: Collection, summaries: Sequence[Summary]) -> list[str]:
    """Metrics of the table of single runs: the headlines, gap and seconds, then all by name."""
    headline = [metric for summary in summaries for metric in summary.columns]
    gap = ["avg_gap"] if any(summary.gap_metrics for summary in summaries) else []
    first = list(dict.fromkeys([*headline, *gap, "seconds"]))
    further = {metric for run in collection.runs for metric in run.metrics} - set(first)
    return [*first, *sorted(further)]


def _definitions(
    collection: Collection, summaries: Sequence[Summary], tasks: Sequence[TaskReport]
) -> list[tuple[str, str]]:
    """Reference models, gaps, metrics, and the score of the histograms."""
    methods = {run.method for run in collection.runs}
    entries = []
    if ORIGINAL in methods:
        entries.append(
            definitions.ORIGINAL_WITH_ORACLE if ORACLE in methods else definitions.ORIGINAL_ALONE
        )
    if ORACLE in methods:
        entries.append(definitions.ORACLE_MODEL)
    if any(summary.gap_metrics for summary in summaries):
        entries += definitions.GAP
    entries += definitions.metric_definitions(collection.runs)
    grids = [task.histograms for task in tasks if task.histograms is not None]
    if any(grid.score == "confidence" for grid in grids):
        entries.append(definitions.CONFIDENCE)
    return entries
