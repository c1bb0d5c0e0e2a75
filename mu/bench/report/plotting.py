"""Panels, points and legends of figures, and their export as SVG.

matplotlib draws without pyplot; the page colours the SVG, so that it follows its light or dark
theme.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mu.bench.report.labels import place_labels
from mu.bench.report.runs import ORACLE, ORIGINAL
from mu.bench.report.summary import Cell, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's palette without black and yellow, which vanish on one of the page's two
backgrounds.
"""

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
"""Seven shapes to six colours: 42 methods can be told apart, and neighbours differ in both."""

Looks = Mapping[str, tuple[str, str]]
"""By method: colour and marker."""

# Colours that stand for the page's own until the SVG is finished.
INK = "#010203"
MUTED = "#040506"
_LINE = "#070809"
_THEME = {INK: "var(--ink)", MUTED: "var(--muted)", _LINE: "var(--line)"}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mu",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
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
_WIDTH, HEIGHT = 5.6, 3.9  # inches; the page scales figures to their column
FONT_SIZE = 9.0  # points; names of methods


def make_plane() -> tuple[Figure, Axes]:
    """One panel with fixed margins, so that positions are known before anything is drawn."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, HEIGHT), dpi=72)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.125, right=0.985, bottom=0.135, top=0.975)
    return figure, axes


def make_panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Panels, two in a row, whose margins fit their labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=72, layout="constrained")
    grid = figure.subplots(math.ceil(count / 2), min(count, 2), squeeze=False).flatten().tolist()
    for unused in grid[count:]:
        unused.remove()
    return figure, grid[:count]


def draw_point(axes: Axes, row: Row, x: Cell, y: Cell, looks: Looks) -> None:
    """Draw a method's mean with error bars; a star for the oracle, a circle for the original."""
    references = {ORACLE: (INK, "*", 14.0), ORIGINAL: (INK, "o", 8.0)}
    colour, marker, size = references.get(row.method) or (*looks[row.method], 7.5)
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
        label=legend_text(row.method),
        zorder=3,
    )


def label_points(
    figure: Figure, axes: Axes, points: Sequence[tuple[Row, Cell, Cell]], level: float | None = None
) -> None:
    """Label points with their methods where there is room, else add a legend.

    Args:
        figure: holds the axes, with fixed margins.
        axes: the points are drawn.
        points: row, x and y of each point.
        level: height of the original's line, which is labelled at its right end.
    """
    axes.autoscale_view()  # else the limits are found only when it is drawn
    width, height = axes.bbox.size
    x0, y0 = axes.bbox.min
    centres = [tuple(axes.transData.transform((x.mean, y.mean)) - (x0, y0)) for _, x, y in points]
    sizes = [(len(row.method) * 0.58 * FONT_SIZE + 2, 1.25 * FONT_SIZE) for row, _, _ in points]
    radii = [7.0 if row.method == ORACLE else 4.5 for row, _, _ in points]
    bars = [_reach(axes, x, y) for _, x, y in points]
    lines = [
        (u0 - x0, y - 1.0, u1 - x0, y + 1.0)
        for (_, y), (u0, u1, _, _) in zip(centres, bars, strict=True)
    ]
    lines += [
        (x - 1.0, v0 - y0, x + 1.0, v1 - y0)
        for (x, _), (_, _, v0, v1) in zip(centres, bars, strict=True)
    ]
    occupied = []
    if level is not None:
        foot = float(axes.transData.transform((axes.get_xlim()[0], level))[1]) - y0
        occupied = [
            (width - 0.58 * FONT_SIZE * len(ORIGINAL) - 4, foot, width, foot + 1.5 * FONT_SIZE)
        ]
    labels = place_labels(centres, radii, sizes, (width, height), lines, occupied)
    if labels is None:
        figure.set_layout_engine("constrained")
        add_legend(figure, axes)
        return
    for (row, x, y), label in zip(points, labels, strict=True):
        line = (
            {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
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
            fontsize=FONT_SIZE,
            arrowprops=line,
            zorder=4,
        )


def _reach(axes: Axes, x: Cell, y: Cell) -> tuple[float, float, float, float]:
    """Ends of the error bars in points of the figure: left, right, bottom, top."""
    low = axes.transData.transform(
        (max(x.mean - (x.std or 0), axes.get_xlim()[0]), y.mean - (y.std or 0))
    )
    high = axes.transData.transform((x.mean + (x.std or 0), y.mean + (y.std or 0)))
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])


def add_legend(figure: Figure, axes: Axes) -> None:
    """Add a legend under the panels, which keep their height."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    columns = max(
        1, min(len(labels), int(_WIDTH * 72 / (max(map(len, labels)) * 0.55 * FONT_SIZE + 34)))
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


def set_log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Ticks at 1, 2 and 5 on a logarithmic axis that holds at least two of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low = min(values)
    high = max(values)
    widen = max(1.3, math.sqrt(8 * low / high))
    axes.set_xlim(low / widen, high * widen)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def legend_text(name: str) -> str:
    """Name of a method for a legend, which would hide a leading underscore."""
    return "\u200b" + name if name.startswith("_") else name


def as_svg(figure: Figure, label: str) -> str:
    """A figure as an SVG element of an HTML page, in the page's colours, font and width."""
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
    attributes = f'class="figure" viewBox="{box[1]}" role="img" aria-label="{escape(label)}"'
    return f"<svg {attributes}>{body.strip()}"
