"""Label placement for scatter plots: no label covers another label or a point.

adjustText 1.4 was tried in its place. It moves labels along forces and always returns something:
with seventeen methods near one another labels still overlapped and had long crossing lines, where
this placement finds that there is no room and the figure gets a legend; a figure took it 0.1 to 1.4
seconds, and this takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import cos, radians, sin
from typing import Literal

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


@dataclass(frozen=True)
class Label:
    """Anchor of a label relative to its point, its alignment, and whether it needs a line."""

    dx: float
    dy: float
    across: Literal["left", "center", "right"]
    along: Literal["bottom", "center", "top"]
    far: bool


def place_labels(
    centres: Sequence[tuple[float, float]],
    radii: Sequence[float],
    sizes: Sequence[tuple[float, float]],
    area: tuple[float, float],
    lines: Sequence[Box] = (),
    texts: Sequence[Box] = (),
) -> list[Label] | None:
    """Greedy label placement: crowded points first, each label at the nearest free position.

    Args:
        centres: of the points, `(x, y)` from the area's lower left corner.
        radii: of the points' markers.
        sizes: width and height of the labels.
        area: width and height that labels may not leave.
        lines: boxes of error bars, which labels avoid where there is room.
        texts: boxes of other texts, which labels never cover.

    Returns:
        One for each point, or None when some label finds no position that is free of texts and
        markers.
    """
    occupied: list[Box] = [
        *texts,
        *((x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)),
    ]
    return _place(centres, radii, sizes, area, [*occupied, *lines]) or _place(
        centres, radii, sizes, area, occupied
    )


def _place(
    centres: Sequence[tuple[float, float]],
    radii: Sequence[float],
    sizes: Sequence[tuple[float, float]],
    area: tuple[float, float],
    occupied: list[Box],
) -> list[Label] | None:
    occupied = list(occupied)
    labels = {}
    for index in sorted(range(len(centres)), key=lambda i: -_crowd(centres, i)):
        for label, box in _candidates(centres[index], radii[index], sizes[index]):
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= area[0] and box[3] <= area[1]
            if inside and not any(_touch(box, other) for other in occupied):
                labels[index] = label
                occupied.append(box)
                break
        else:
            return None
    return [labels[index] for index in range(len(centres))]


def _candidates(
    centre: tuple[float, float], radius: float, size: tuple[float, float]
) -> Iterator[tuple[Label, Box]]:
    """Positions of a label and their boxes, nearest first; axes before diagonals."""
    for reach, degrees in product(
        (2.5, 9.0, 17.0, 27.0, 40.0), (0, 180, 90, 270, 30, 330, 150, 210, 60, 300, 120, 240)
    ):
        across = cos(radians(degrees))
        along = sin(radians(degrees))
        dx = across * (radius + reach)
        dy = along * (radius + reach)
        side = _sign(across, 0.3)
        level = _sign(along, 0.6)
        x0 = centre[0] + dx - size[0] * (1 - side) / 2
        y0 = centre[1] + dy - size[1] * (1 - level) / 2
        label = Label(
            dx, dy, ("center", "left", "right")[side], ("center", "bottom", "top")[level], reach > 9
        )
        yield label, (x0, y0, x0 + size[0], y0 + size[1])


def _sign(value: float, least: float) -> int:
    """Sign of a value, 0 where it is small."""
    return (value > least) - (value < -least)


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _crowd(centres: Sequence[tuple[float, float]], index: int) -> float:
    """Density of points around one of them."""
    x, y = centres[index]
    return sum(
        1 / (1 + (x - u) ** 2 + (y - v) ** 2) for k, (u, v) in enumerate(centres) if k != index
    )
