"""Figures as inline SVG: drawn by matplotlib without pyplot, coloured by the page so that they
follow its light or dark theme.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mu.bench.report.labels import place_labels
from mu.bench.report.runs import ORACLE, ORIGINAL
from mu.bench.report.summary import Cell, Row, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's palette without black and yellow, which vanish on one of the page's two
backgrounds.
"""

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
"""Seven shapes to six colours: 42 methods can be told apart, and neighbours differ in both."""

Curves = Mapping[str, Sequence[Sequence[Mapping[str, float]]]]
"""By method: for each run, the rows of its `curves.json`."""

Looks = Mapping[str, tuple[str, str]]
"""By method: colour and marker."""

# Colours that stand for the page's own until the SVG is finished.
_INK = "#010203"
_MUTED = "#040506"
_LINE = "#070809"
_THEME = {_INK: "var(--ink)", _MUTED: "var(--muted)", _LINE: "var(--line)"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mu",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
}
_WIDTH, _HEIGHT = 5.6, 3.9  # inches; the page scales figures to their column
_SMALL = 9.0  # points; names of methods


@dataclass(frozen=True)
class Plane:
    """Two things that a method trades against each other.

    Attributes:
        title: of the figure.
        x, y: metrics; where there are several, their mean.
        across, up: what they say, for the axes; empty for the metrics' names alone.
    """

    title: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    across: str = ""
    up: str = ""


PLANES = (
    Plane(
        "Forgetting and utility",
        ("UA",),
        ("RA", "TA"),
        "UA: error on the forget set",
        "utility: mean of RA and TA",
    ),
    Plane("Forgetting and what is kept", ("UA",), ("IRA", "CRA"), "UA: erased concept not seen"),
    Plane(
        "Forget quality and utility",
        ("log10_FQ",),
        ("MU",),
        "log10 of forget quality",
        "model utility",
    ),
    Plane("Robustness and quality", ("ASR",), ("FID",), "ASR: concept brought back by the attack"),
)
"""Each is drawn where methods measured both sides."""


def figures(summary: Summary, curves: Curves) -> list[tuple[str, str, str]]:
    """Title, explanation and SVG of each figure that the task's numbers allow."""
    from matplotlib import rc_context

    methods = [row.method for row in summary.rows if row.is_method]
    looks = {
        method: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        for i, method in enumerate(methods)
    }
    made: list[tuple[str, str, str]] = []
    with rc_context(_STYLE):
        drawn = [
            (trade_off(summary, looks, plane), plane.title, _reading(summary, plane))
            for plane in PLANES
        ]
        drawn += [
            (
                gap_bars(summary, looks),
                "Gap to the oracle",
                "Mean over seeds; bars: standard deviation; dots: single seeds. Dashed line: "
                "the original, that is, doing nothing.",
            ),
            (
                time_and_gap(summary, looks),
                "Time and gap",
                "Seconds of unlearning on a logarithmic scale. Star: retraining; what lies to "
                "the right of it saves nothing.",
            ),
            (
                curve_panels(summary, looks, curves),
                "During the fit",
                "Validation while unlearning; one line for each seed.",
            ),
        ]
        for figure, title, words in drawn:
            if figure is not None:
                made.append((title, words, as_svg(figure, f"{title}: {summary.name}")))
    return made


def _reading(summary: Summary, plane: Plane) -> str:
    """How a plane is read: by nearness to the oracle, or by the corner that is good."""
    words = "Mean of each method; bars: standard deviation over seeds."
    if summary.row(ORACLE) is not None:
        return f"{words} Star and dashed lines: the oracle. Nearer is better; beyond it is not."
    x = summary.better.get(plane.x[0])
    y = summary.better.get(plane.y[0])
    corner = (
        f" Better: to the {'right' if x else 'left'} and {'up' if y else 'down'}."
        if x is not None and y is not None
        else ""
    )
    return words + (" Circle: the original." if summary.row(ORIGINAL) is not None else "") + corner


def trade_off(summary: Summary, looks: Looks, plane: Plane) -> Figure | None:
    """The plane's two sides; None without methods that measured them."""
    xs, ys = ([name for name in side if name in summary.columns] for side in (plane.x, plane.y))
    points = [
        (row, x, y)
        for row in summary.rows
        if (x := _mean(row, xs)) is not None and (y := _mean(row, ys)) is not None
    ]
    if not any(row.is_method for row, _, _ in points):
        return None
    figure, axes = _plane()
    for row, x, y in points:
        if row.method == ORACLE:
            axes.axvline(x.mean, color=_MUTED, linestyle="--", linewidth=0.9, zorder=1)
            axes.axhline(y.mean, color=_MUTED, linestyle="--", linewidth=0.9, zorder=1)
        _point(axes, row, x, y, looks)
    axes.margins(0.12)
    axes.set(
        xlabel=_axis(summary, xs, plane.across if len(xs) == len(plane.x) else ""),
        ylabel=_axis(summary, ys, plane.up if len(ys) == len(plane.y) else ""),
    )
    _name(figure, axes, points)
    return figure


def _axis(summary: Summary, names: Sequence[str], words: str) -> str:
    unit = summary.units.get(names[0], "")
    text = words or ("mean of " if len(names) > 1 else "") + " and ".join(names)
    return text + (f" ({unit})" if unit else "")


def gap_bars(summary: Summary, looks: Looks) -> Figure | None:
    """The average gap of each method, the smallest on top; None without gaps."""
    rows = sorted(
        (row for row in summary.rows if row.is_method and "avg_gap" in row.cells),
        key=lambda r: -r.cells["avg_gap"].mean,
    )
    if not rows:
        return None
    figure, (axes,) = _panels(1, height=max(_HEIGHT, 1.0 + 0.26 * len(rows)))
    for place, row in enumerate(rows):
        cell = row.cells["avg_gap"]
        axes.barh(
            place,
            cell.mean,
            height=min(0.62, 0.11 * len(rows)),
            color=looks[row.method][0],
            alpha=0.85,
        )
        if cell.std is not None:
            axes.errorbar(cell.mean, place, xerr=cell.std, color=_INK, linewidth=1, capsize=2.5)
            values = [run.values["avg_gap"] for run in row.runs if "avg_gap" in run.values]
            axes.plot(
                values,
                [place] * len(values),
                linestyle="",
                marker="o",
                markersize=2.6,
                color=_INK,
                alpha=0.75,
            )
    _nothing(axes, summary, axes.axvline)
    axes.set_yticks(range(len(rows)), [_plain(row.method) for row in rows], color=_INK)
    axes.grid(False, axis="y")
    axes.set(xlabel=_gap_label(summary))
    axes.set_xlim(left=0)
    return figure


def time_and_gap(summary: Summary, looks: Looks) -> Figure | None:
    """Seconds against the gap, of methods and oracle; None where either was not measured."""
    points = [
        (row, row.cells["seconds"], row.cells["avg_gap"])
        for row in summary.rows
        if {"seconds", "avg_gap"} <= set(row.cells)
        and row.method != ORIGINAL
        and row.cells["seconds"].mean > 0
    ]
    if not any(row.is_method for row, _, _ in points):
        return None
    figure, axes = _plane()
    axes.set_xscale("log")
    for row, x, y in points:
        _point(axes, row, x, y, looks)
    _log_ticks(
        axes,
        [max(x.mean + side * (x.std or 0), x.mean / 4) for _, x, _ in points for side in (-1, 1)],
    )
    axes.set(xlabel="seconds", ylabel=_gap_label(summary))
    axes.margins(y=0.12)
    gap = _nothing(axes, summary, axes.axhline)
    _name(figure, axes, points, gap)
    return figure


def curve_panels(summary: Summary, looks: Looks, curves: Curves) -> Figure | None:
    """Accuracy by part where validation logged it, else loss; None where nothing was validated."""
    runs = {method: curves[method] for method in looks if curves.get(method)}
    seen = {key for each in runs.values() for rows in each for row in rows for key in row}
    keys = next(
        (
            found
            for end in ("/accuracy", "/loss")
            if (found := sorted(key for key in seen if key.endswith(end)))
        ),
        [],
    )
    if not keys:
        return None
    figure, panels = _panels(
        len(keys), height=_HEIGHT if len(keys) < 3 else 2.0 * math.ceil(len(keys) / 2)
    )
    for axes, key in zip(panels, keys, strict=True):
        for method, each in runs.items():
            colour, marker = looks[method]
            for number, rows in enumerate(each):
                points = [(row["step"], row[key]) for row in rows if key in row]
                axes.plot(
                    [x for x, _ in points],
                    [y for _, y in points],
                    color=colour,
                    marker=marker,
                    markersize=3.5,
                    linewidth=1.2,
                    alpha=0.8,
                    label="" if number else _plain(method),
                )
        axes.set_title(key.replace("/", " "))
        axes.set(xlabel="step")
    _legend(figure, panels[0])
    return figure


# ---- parts ---------------------------------------------------------------------------------------


def _plane() -> tuple[Figure, Axes]:
    """One panel with fixed margins, so that it is known where points will lie before anything is
    drawn.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=72)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.125, right=0.985, bottom=0.135, top=0.975)
    return figure, axes


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Panels, two in a row, whose margins fit their labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=72, layout="constrained")
    grid = figure.subplots(math.ceil(count / 2), min(count, 2), squeeze=False).flatten().tolist()
    for spare in grid[count:]:
        spare.remove()
    return figure, grid[:count]


def _point(axes: Axes, row: Row, x: Cell, y: Cell, looks: Looks) -> None:
    known = {ORACLE: (_INK, "*", 14.0), ORIGINAL: (_INK, "o", 8.0)}
    colour, marker, size = known.get(row.method) or (*looks[row.method], 7.5)
    axes.errorbar(
        x.mean,
        y.mean,
        xerr=x.std,
        yerr=y.std,
        linestyle="",
        color=colour,
        marker=marker,
        markersize=size,
        elinewidth=1,
        markerfacecolor="none" if row.method == ORIGINAL else colour,
        label=_plain(row.method),
        zorder=3,
    )


def _nothing(axes: Axes, summary: Summary, line: Any) -> float | None:
    """The original's gap as a line, named at its end (above, or at the right); the gap."""
    row = summary.row(ORIGINAL)
    if row is None or "avg_gap" not in row.cells:
        return None
    gap = row.cells["avg_gap"].mean
    line(gap, color=_INK, linestyle="--", linewidth=1.1, zorder=1)
    if line == axes.axvline:
        axes.annotate(
            ORIGINAL,
            (gap, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=_SMALL,
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
            fontsize=_SMALL,
        )
    return gap


def _name(
    figure: Figure, axes: Axes, points: Sequence[tuple[Row, Cell, Cell]], level: float | None = None
) -> None:
    """Names beside the points where all find room without touching one another, else a legend.

    Args:
        figure: holds the axes, with fixed margins.
        axes: the points are drawn.
        points: method and place.
        level: height of the original's line, whose name stands at its right end.
    """
    axes.autoscale_view()  # else the limits are found only when it is drawn
    width, height = axes.bbox.size
    left, bottom = axes.bbox.min
    centres = [
        tuple(axes.transData.transform((x.mean, y.mean)) - (left, bottom)) for _, x, y in points
    ]
    sizes = [(len(row.method) * 0.58 * _SMALL + 2, 1.25 * _SMALL) for row, _, _ in points]
    radii = [7.0 if row.method == ORACLE else 4.5 for row, _, _ in points]
    bars = [_reach(axes, x, y) for _, x, y in points]
    lines = [
        (u0 - left, y - 1.0, u1 - left, y + 1.0)
        for (_, y), (u0, u1, _, _) in zip(centres, bars, strict=True)
    ]
    lines += [
        (x - 1.0, v0 - bottom, x + 1.0, v1 - bottom)
        for (x, _), (_, _, v0, v1) in zip(centres, bars, strict=True)
    ]
    texts = []
    if level is not None:
        foot = float(axes.transData.transform((axes.get_xlim()[0], level))[1]) - bottom
        texts = [(width - 0.58 * _SMALL * len(ORIGINAL) - 4, foot, width, foot + 1.5 * _SMALL)]
    placed = place_labels(centres, radii, sizes, (width, height), lines, texts)
    if placed is None:
        figure.set_layout_engine("constrained")
        _legend(figure, axes)
        return
    for (row, x, y), label in zip(points, placed, strict=True):
        line = (
            {"arrowstyle": "-", "color": _MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            if label.far
            else None
        )
        axes.annotate(
            row.method,
            (x.mean, y.mean),
            xytext=(label.dx, label.dy),
            textcoords="offset points",
            ha=label.across,
            va=label.along,
            fontsize=_SMALL,
            arrowprops=line,
            zorder=4,
        )


def _reach(axes: Axes, x: Cell, y: Cell) -> tuple[float, float, float, float]:
    """Where the error bars end, in points of the figure: left, right, bottom, top."""
    low = axes.transData.transform(
        (max(x.mean - (x.std or 0), axes.get_xlim()[0]), y.mean - (y.std or 0))
    )
    high = axes.transData.transform((x.mean + (x.std or 0), y.mean + (y.std or 0)))
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])


def _legend(figure: Figure, axes: Axes) -> None:
    """Under the panels, which keep their height."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    columns = max(
        1, min(len(labels), int(_WIDTH * 72 / (max(map(len, labels)) * 0.55 * _SMALL + 34)))
    )
    figure.set_figheight(figure.get_figheight() + 0.19 * math.ceil(len(labels) / columns))
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        handletextpad=0.4,
        columnspacing=1.2,
    )


def _mean(row: Row, names: Sequence[str]) -> Cell | None:
    """Over seeds, of the mean over some metrics; None where no run has them all."""
    return Cell.of(
        [
            sum(run.values[name] for name in names) / len(names)
            for run in row.runs
            if names and set(names) <= set(run.values)
        ]
    )


def _gap_label(summary: Summary) -> str:
    return "gap to the oracle" + (" (pp)" if summary.units.get("avg_gap") == "pp" else "")


def _log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Plain numbers at 1, 2 and 5, on an axis wide enough to hold at least two of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low = min(values)
    high = max(values)
    widen = max(1.3, math.sqrt(8 * low / high))
    axes.set_xlim(low / widen, high * widen)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _plain(name: str) -> str:
    """A name that a legend shows: a leading underscore would hide it."""
    return "\u200b" + name if name.startswith("_") else name


def as_svg(figure: Figure, label: str) -> str:
    """The figure as an element for an HTML page: no prolog, no metadata, the page's colours and
    font, its width given by the page.
    """
    import io
    from html import escape

    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(
        text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box is not None, "matplotlib gives every figure a box"
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index(">") + 1 :], flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)
    for stand_in, colour in _THEME.items():
        body = body.replace(stand_in, colour)
    return f'<svg class="figure" viewBox="{box[1]}" role="img" aria-label="{escape(label)}">{body.strip()}'
