"""Figures of a task: trade-offs, gaps, time, and curves during the fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mu.bench.report.curves import Curves
from mu.bench.report.plotting import (
    COLOURS,
    FONT_SIZE,
    HEIGHT,
    INK,
    MARKERS,
    MUTED,
    STYLE,
    Looks,
    add_legend,
    as_svg,
    draw_point,
    label_points,
    legend_text,
    make_panels,
    make_plane,
    set_log_ticks,
)
from mu.bench.report.runs import ORACLE, ORIGINAL
from mu.bench.report.summary import Cell, Row, Summary
from mu.metrics.results import TradeOff

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as inline SVG, with its title and caption."""

    title: str
    caption: str
    svg: str


def figures(summary: Summary, curves: Curves) -> list[DrawnFigure]:
    """The figures that the task's numbers allow."""
    from matplotlib import rc_context

    methods = [row.method for row in summary.rows if row.is_method]
    looks = {
        method: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        for i, method in enumerate(methods)
    }
    with rc_context(STYLE):
        drawn = [
            (
                plot_trade_off(summary, looks, trade_off),
                trade_off.title,
                _caption(summary, trade_off),
            )
            for trade_off in summary.trade_offs
        ]
        drawn += [
            (
                gap_bars(summary, looks),
                "Gap to the oracle",
                "Mean over seeds; bars: standard deviation; dots: single seeds. Dashed line: "
                "the original, without unlearning.",
            ),
            (
                time_and_gap(summary, looks),
                "Time and gap",
                "Seconds of unlearning on a logarithmic scale. Star: retraining; what lies to "
                "the right of it saves nothing.",
            ),
            (
                curvemake_panels(summary, looks, curves),
                "During the fit",
                "Validation while unlearning; one line for each seed.",
            ),
        ]
        return [
            DrawnFigure(title, caption, as_svg(figure, f"{title}: {summary.name}"))
            for figure, title, caption in drawn
            if figure is not None
        ]


def _caption(summary: Summary, trade_off: TradeOff) -> str:
    """How a trade-off is read: by nearness to the oracle, or by the corner that is good."""
    text = "Mean of each method; bars: standard deviation over seeds."
    if summary.row(ORACLE) is not None:
        return f"{text} Star and dashed lines: the oracle. Nearer is better; beyond it is not."
    if summary.row(ORIGINAL) is not None:
        text += " Circle: the original."
    x = summary.higher_is_better.get(trade_off.x[0])
    y = summary.higher_is_better.get(trade_off.y[0])
    if x is not None and y is not None:
        text += f" Better: to the {'right' if x else 'left'} and {'up' if y else 'down'}."
    return text


def plot_trade_off(summary: Summary, looks: Looks, trade_off: TradeOff) -> Figure | None:
    """Scatter plot of two goals; None without methods that measured both."""
    xs = [metric for metric in trade_off.x if metric in summary.columns]
    ys = [metric for metric in trade_off.y if metric in summary.columns]
    points = [
        (row, x, y)
        for row in summary.rows
        if (x := _mean(row, xs)) is not None and (y := _mean(row, ys)) is not None
    ]
    if not any(row.is_method for row, _, _ in points):
        return None
    figure, axes = make_plane()
    for row, x, y in points:
        if row.method == ORACLE:
            axes.axvline(x.mean, color=MUTED, linestyle="--", linewidth=0.9, zorder=1)
            axes.axhline(y.mean, color=MUTED, linestyle="--", linewidth=0.9, zorder=1)
        draw_point(axes, row, x, y, looks)
    axes.margins(0.12)
    axes.set(
        xlabel=_axis_label(summary, xs, trade_off.x_label if len(xs) == len(trade_off.x) else ""),
        ylabel=_axis_label(summary, ys, trade_off.y_label if len(ys) == len(trade_off.y) else ""),
    )
    label_points(figure, axes, points)
    return figure


def _axis_label(summary: Summary, metrics: Sequence[str], label: str) -> str:
    unit = summary.units.get(metrics[0], "")
    text = label or ("mean of " if len(metrics) > 1 else "") + " and ".join(metrics)
    return text + (f" ({unit})" if unit else "")


def gap_bars(summary: Summary, looks: Looks) -> Figure | None:
    """Bars of each method's average gap, the smallest on top; None without gaps."""
    rows = sorted(
        (row for row in summary.rows if row.is_method and "avg_gap" in row.cells),
        key=lambda r: -r.cells["avg_gap"].mean,
    )
    if not rows:
        return None
    figure, (axes,) = make_panels(1, height=max(HEIGHT, 1.0 + 0.26 * len(rows)))
    for position, row in enumerate(rows):
        cell = row.cells["avg_gap"]
        axes.barh(
            position,
            cell.mean,
            height=min(0.62, 0.11 * len(rows)),
            color=looks[row.method][0],
            alpha=0.85,
        )
        if cell.std is not None:
            axes.errorbar(cell.mean, position, xerr=cell.std, color=INK, linewidth=1, capsize=2.5)
            values = [run.values["avg_gap"] for run in row.runs if "avg_gap" in run.values]
            axes.plot(
                values,
                [position] * len(values),
                linestyle="",
                marker="o",
                markersize=2.6,
                color=INK,
                alpha=0.75,
            )
    _draw_original(axes, summary, axes.axvline)
    axes.set_yticks(range(len(rows)), [legend_text(row.method) for row in rows], color=INK)
    axes.grid(False, axis="y")
    axes.set(xlabel=_gap_label(summary))
    axes.set_xlim(left=0)
    return figure


def time_and_gap(summary: Summary, looks: Looks) -> Figure | None:
    """Scatter plot of seconds and gap of methods and oracle; None where one was not measured."""
    points = [
        (row, row.cells["seconds"], row.cells["avg_gap"])
        for row in summary.rows
        if {"seconds", "avg_gap"} <= set(row.cells)
        and row.method != ORIGINAL
        and row.cells["seconds"].mean > 0
    ]
    if not any(row.is_method for row, _, _ in points):
        return None
    figure, axes = make_plane()
    axes.set_xscale("log")
    for row, x, y in points:
        draw_point(axes, row, x, y, looks)
    set_log_ticks(
        axes,
        [max(x.mean + side * (x.std or 0), x.mean / 4) for _, x, _ in points for side in (-1, 1)],
    )
    axes.set(xlabel="seconds", ylabel=_gap_label(summary))
    axes.margins(y=0.12)
    gap = _draw_original(axes, summary, axes.axhline)
    label_points(figure, axes, points, gap)
    return figure


def curvemake_panels(summary: Summary, looks: Looks, curves: Curves) -> Figure | None:
    """Curves of accuracy by part, or of the loss where no accuracy was logged; None without."""
    runs = {method: curves[method] for method in looks if curves.get(method)}
    logged = sorted(
        {key for curve in runs.values() for rows in curve for row in rows for key in row}
    )
    accuracies = [key for key in logged if key.endswith("/accuracy")]
    keys = accuracies or [key for key in logged if key.endswith("/loss")]
    if not keys:
        return None
    figure, panels = make_panels(
        len(keys), height=HEIGHT if len(keys) < 3 else 2.0 * math.ceil(len(keys) / 2)
    )
    for axes, key in zip(panels, keys, strict=True):
        for method, curve in runs.items():
            colour, marker = looks[method]
            for index, rows in enumerate(curve):
                points = [(row["step"], row[key]) for row in rows if key in row]
                axes.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    color=colour,
                    marker=marker,
                    markersize=3.5,
                    linewidth=1.2,
                    alpha=0.8,
                    label="" if index else legend_text(method),
                )
        axes.set_title(key.replace("/", " "))
        axes.set(xlabel="step")
    add_legend(figure, panels[0])
    return figure


def _draw_original(axes: Axes, summary: Summary, line: Any) -> float | None:
    """Line at the original's gap, labelled at its end (above, or at the right); the gap."""
    row = summary.row(ORIGINAL)
    if row is None or "avg_gap" not in row.cells:
        return None
    gap = row.cells["avg_gap"].mean
    line(gap, color=INK, linestyle="--", linewidth=1.1, zorder=1)
    if line == axes.axvline:
        axes.annotate(
            ORIGINAL,
            (gap, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=FONT_SIZE,
        )
    else:
        axes.annotate(
            ORIGINAL,
            (1, gap),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=FONT_SIZE,
        )
    return gap


def _mean(row: Row, metrics: Sequence[str]) -> Cell | None:
    """Mean over seeds of the mean over some metrics; None where no run has them all."""
    return Cell.from_values(
        [
            sum(run.values[metric] for metric in metrics) / len(metrics)
            for run in row.runs
            if metrics and set(metrics) <= set(run.values)
        ]
    )


def _gap_label(summary: Summary) -> str:
    return "gap to the oracle" + (" (pp)" if summary.units.get("avg_gap") == "pp" else "")
