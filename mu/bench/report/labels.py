"""Where names go beside points, so that none covers another name or a point."""

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
    """A label's anchor relative to its point, how it is aligned there, and whether it is so far
    that it needs a line.
    """

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
    """Greedy placement: the most crowded point chooses first; each takes the nearest free place
    around it.

    Args:
        centres: of the points, `(x, y)` from the area's lower left corner.
        radii: of the points' markers.
        sizes: width and height of the labels.
        area: width and height that labels may not leave.
        lines: what labels should leave free too (error bars), unless there is no room otherwise.
        texts: what else is written there.

    Returns:
        One for each point, or None when some label finds no place that is free of texts and
        markers.
    """
    taken: list[Box] = [
        *texts,
        *((x - r, y - r, x + r, y + r) for (x, y), r in zip(centres, radii, strict=True)),
    ]
    return _place(centres, radii, sizes, area, [*taken, *lines]) or _place(
        centres, radii, sizes, area, taken
    )


def _place(
    centres: Sequence[tuple[float, float]],
    radii: Sequence[float],
    sizes: Sequence[tuple[float, float]],
    area: tuple[float, float],
    taken: list[Box],
) -> list[Label] | None:
    taken = list(taken)
    found = {}
    for index in sorted(range(len(centres)), key=lambda i: -_crowd(centres, i)):
        for label, box in _candidates(centres[index], radii[index], sizes[index]):
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= area[0] and box[3] <= area[1]
            if inside and not any(_touch(box, other) for other in taken):
                found[index] = label
                taken.append(box)
                break
        else:
            return None
    return [found[index] for index in range(len(centres))]


def _candidates(
    centre: tuple[float, float], radius: float, size: tuple[float, float]
) -> Iterator[tuple[Label, Box]]:
    """Nearest first; at each distance right, left, above and below before the directions
    between.
    """
    for reach, degrees in product(
        (2.5, 9.0, 17.0, 27.0, 40.0), (0, 180, 90, 270, 30, 330, 150, 210, 60, 300, 120, 240)
    ):
        across = cos(radians(degrees))
        along = sin(radians(degrees))
        dx = across * (radius + reach)
        dy = along * (radius + reach)
        side = _sign(across, 0.3)
        level = _sign(along, 0.6)
        left = centre[0] + dx - size[0] * (1 - side) / 2
        bottom = centre[1] + dy - size[1] * (1 - level) / 2
        label = Label(
            dx, dy, ("center", "left", "right")[side], ("center", "bottom", "top")[level], reach > 9
        )
        yield label, (left, bottom, left + size[0], bottom + size[1])


def _sign(value: float, least: float) -> int:
    """−1, 0 or 1, 0 where it is small."""
    return (value > least) - (value < -least)


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _crowd(centres: Sequence[tuple[float, float]], index: int) -> float:
    """How near the others are."""
    x, y = centres[index]
    return sum(
        1 / (1 + (x - u) ** 2 + (y - v) ** 2) for k, (u, v) in enumerate(centres) if k != index
    )
