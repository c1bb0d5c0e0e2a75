"""Numbers as text: means, spreads, distances to the oracle, column headings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mu.bench.report.runs import ORACLE
from mu.bench.report.summary import GAP_OF_MEANS, Cell, Row, Summary

PERCENT = ("%", "pp")
"""Units with two decimals."""

COUNTS = ("weights", "MiB")
"""Units of whole numbers."""

MISSING = "–"
"""Text of a cell that was not measured."""

UNDEFINED = "undefined"
"""Text of a cell whose metric has no value."""

_DEEPEST = 10.0  # percentage points from the oracle at which a cell's colour is deepest


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Attributes:
        metric: name of the metric.
        heading: title of the column.
        unit: unit beside the title; empty for seconds.
        direction: `↑` where higher is better, `↓` where lower is; empty where closeness to the
            oracle is the goal.
    """

    metric: str
    heading: str
    unit: str
    direction: str


@dataclass(frozen=True)
class FormattedCell:
    """Cell of a table, as text.

    Attributes:
        mean: mean over seeds.
        std: sample standard deviation; empty for one seed.
        sort_key: the mean in full precision; None where the metric is undefined.
        offset: signed distance to the oracle; empty where it is not shown.
        side: `above` or `below` the oracle; empty at it.
        depth: depth of the cell's colour in percent, growing with the distance.
        best: whether it is the best of the methods.
        interval: `[low, high]` of a rate of one seed; empty for others.
        reason: why the metric is undefined; empty where it has a value.
    """

    mean: str
    std: str
    sort_key: float | None
    offset: str = ""
    side: str = ""
    depth: int = 0
    best: bool = False
    interval: str = ""
    reason: str = ""

    @property
    def distance(self) -> str:
        """Distance to the oracle without its sign."""
        return self.offset.lstrip("+−")

    def with_spread(self, separator: str = " ") -> str:
        """`mean ± std`; for one seed the mean, and the interval of a rate."""
        spread = f"± {self.std}" if self.std else self.interval
        return f"{self.mean}{separator}{spread}" if spread else self.mean


def format_number(value: float, unit: str, like: float | None = None) -> str:
    """A number as a table shows it.

    Percent and percentage points have two decimals, counts of weights and megabytes none, and
    everything else three significant digits.

    Args:
        value: the number.
        unit: its unit.
        like: take the decimals that this value would have (a spread has its mean's).

    Example:
        >>> format_number(12.3456, "%"), format_number(0.0123456, ""), format_number(1e6, "weights")
        ('12.35', '0.0123', '1,000,000')
    """
    if unit in COUNTS:
        return f"{value:,.0f}"
    if unit in PERCENT:
        return f"{value:.2f}"
    scale = abs(value if like is None else like)
    if scale and (scale < 1e-4 or scale >= 1e6):
        return f"{value:.2e}"
    decimals = min(6, max(0, 2 - math.floor(math.log10(scale)))) if scale else 2
    return f"{value:.{decimals}f}"


def heading(metric: str) -> str:
    """Title of a metric's column: `Gap`, `MAE forget`."""
    titles = {"avg_gap": "Gap", GAP_OF_MEANS: "Gap of means"}
    return titles.get(metric, metric.replace("/", " "))


def arrow(higher_is_better: bool | None) -> str:
    """`↑` where higher is better, `↓` where lower is; empty where closeness is the goal."""
    if higher_is_better is None:
        return ""
    return "↑" if higher_is_better else "↓"


def format_column(summary: Summary, metric: str) -> Column:
    """Title, unit and direction of a metric's column."""
    unit = "" if metric.startswith("seconds") else unit_of(summary, metric)
    direction = arrow(summary.higher_is_better.get(metric)) if metric in summary.directed else ""
    return Column(metric, heading(metric), unit, direction)


def unit_of(summary: Summary, metric: str) -> str:
    """Unit of a metric; the gap of means has the average gap's."""
    return summary.units.get("avg_gap" if metric == GAP_OF_MEANS else metric, "")


def format_cell(summary: Summary, row: Row, metric: str) -> FormattedCell | None:
    """A row's value of a metric, as text; None when it was not measured."""
    unit = unit_of(summary, metric)
    source = "avg_gap" if metric == GAP_OF_MEANS else metric
    if source in row.undefined:
        return FormattedCell(UNDEFINED, "", None, reason=row.undefined[source])
    if metric == GAP_OF_MEANS:
        gap = row.gap_of_means
        return None if gap is None else FormattedCell(format_number(gap, unit), "", gap)
    cell = row.cells.get(metric)
    if cell is None:
        return None
    offset = None
    if metric in summary.columns and row.method != ORACLE:
        offset = row.offsets.get(metric)
    return FormattedCell(
        mean=format_number(cell.mean, unit),
        std="" if cell.std is None else format_number(cell.std, unit, like=cell.mean),
        sort_key=cell.mean,
        offset=""
        if offset is None
        else _signed(format_number(offset, unit, like=max(abs(offset), abs(cell.mean)))),
        side=_side(offset),
        depth=_depth(offset, _deepest(summary, metric)) if offset else 0,
        best=(row.smallest_gap and metric == "avg_gap") or metric in row.best_in,
        interval=_interval(row, metric, unit),
    )


def _interval(row: Row, metric: str, unit: str) -> str:
    if metric not in row.intervals:
        return ""
    low, high = (format_number(end, unit) for end in row.intervals[metric])
    return f"[{low}, {high}]"


def mean_with_spread(cell: Cell, unit: str) -> str:
    """`mean ± std`, or the mean alone for one seed."""
    mean = format_number(cell.mean, unit)
    return mean if cell.std is None else f"{mean} ± {format_number(cell.std, unit)}"


def _signed(text: str) -> str:
    """A number with its sign, `+` too; what rounds to zero has none."""
    if not text.strip("-0."):
        return text.lstrip("-")
    return "−" + text[1:] if text.startswith("-") else "+" + text


def _side(offset: float | None) -> str:
    if not offset:
        return ""
    return "above" if offset > 0 else "below"


def _depth(offset: float, deepest: float) -> int:
    return round(100 * math.sqrt(min(1.0, abs(offset) / deepest)))


def _deepest(summary: Summary, metric: str) -> float:
    """Distance with the deepest colour: fixed for percentages, else the column's largest."""
    if summary.units.get(metric) == "%":
        return _DEEPEST
    return max(abs(row.offsets.get(metric, 0.0)) for row in summary.rows)
