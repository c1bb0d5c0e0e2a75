"""Renderer of the shapes task: images from attributes and jitter, vectorised over images.

A shape is a signed distance in pixels (negative inside); its coverage of a pixel falls linearly
from 1 to 0 over one pixel around the edge, taken as the mean over a grid of sub-pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tasks.shapes.words import BACKGROUNDS, COLOURS, SHAPES

SIZE = 32
_SAMPLES = 2  # sub-pixels along each side of a pixel
_CHUNK = 2048  # images rendered at once, which bounds the memory of the sub-pixels

# hue in turns, saturation, value; distinct under the jitter below
_PAINT = {
    "red": (0.0, 0.88, 0.88),
    "green": (0.36, 0.85, 0.68),
    "blue": (0.61, 0.85, 0.9),
    "yellow": (0.145, 0.9, 0.95),
    "purple": (0.79, 0.75, 0.78),
}
_GROUND = {"dark": 0.1, "light": 0.9, "striped": 0.5}
_STRIPE, _CONTRAST = 8.0, 0.24  # period in pixels, and how far stripes lie from their mean
JITTER = 8
"""Uniform numbers of an image: position (2), size, angle, hue, value, brightness of the ground,
position of the stripes.
"""


def _polygon(x: Tensor, y: Tensor, corners: int, inner: float) -> Tensor:
    """Signed distance to a star with outer corners at distance 1 and inner corners at `inner`.

    All sides are mirrored into one sector, so one line represents them.
    """
    sector = math.pi / corners
    angle = torch.atan2(x, y).abs()
    angle = (angle - 2 * sector * torch.round(angle / (2 * sector))).abs()
    radius = torch.hypot(x, y)
    px, py = radius * angle.cos(), radius * angle.sin()  # the outer corner lies at (1, 0)
    qx = inner * math.cos(sector)
    qy = inner * math.sin(sector)
    length = math.hypot(qx - 1, qy)
    return ((px - 1) * qy + py * (1 - qx)) / length


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.9


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.8


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return 1.15 * _polygon(x / 1.15, (y - 0.2) / 1.15, 3, 0.5)


def _star(x: Tensor, y: Tensor) -> Tensor:
    return 1.15 * _polygon(x / 1.15, y / 1.15, 5, 0.42)


def _cross(x: Tensor, y: Tensor) -> Tensor:
    width = 0.3
    length = 1.0
    bars = [torch.maximum(x.abs() - a, y.abs() - b) for a, b in ((width, length), (length, width))]
    return torch.minimum(*bars)


_SHAPE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
}


def render(shape: Tensor, colour: Tensor, background: Tensor, jitter: Tensor) -> Tensor:
    """Render images from attributes and jitter.

    Args:
        shape: `[B]` int64, index in `SHAPES`.
        colour: `[B]` int64, index in `COLOURS`.
        background: `[B]` int64, index in `BACKGROUNDS`.
        jitter: `[B, JITTER]` float32 in (0, 1): position, size, angle, hue and so on, see `JITTER`.

    Returns:
        `[B, 3, 32, 32]` uint8, with the complete shape inside the image.
    """
    chunks = zip(
        *(values.split(_CHUNK) for values in (shape, colour, background, jitter)), strict=True
    )
    drawn = [_render(*chunk) for chunk in chunks]
    return torch.cat(drawn) if drawn else torch.empty(0, 3, SIZE, SIZE, dtype=torch.uint8)


def ground(background: Tensor, jitter: Tensor) -> Tensor:
    """Grey levels of a background alone, `[B, 32, 32]` in [0, 1]; arguments as of `render`."""
    j = (2 * jitter - 1).unbind(1)
    return _ground(background, j[6] * 0.05, j[7] * _STRIPE / 2)


def _render(shape: Tensor, colour: Tensor, background: Tensor, jitter: Tensor) -> Tensor:
    j = (2 * jitter - 1).unbind(1)  # each in (-1, 1)
    covered = _coverage(shape, j[0] * 3, j[1] * 3, 9.5 + 1.5 * j[2], j[3] * math.radians(8))[
        :, None
    ]
    paint = _paint(colour, j[4] * 0.018, j[5] * 0.06)[:, :, None, None]
    level = ground(background, jitter)[:, None]
    return ((level + covered * (paint - level)) * 255).round().clamp(0, 255).to(torch.uint8)


def _coverage(shape: Tensor, right: Tensor, down: Tensor, radius: Tensor, angle: Tensor) -> Tensor:
    """Share of each pixel that the shape covers, `[B, 32, 32]`."""
    pixel = (torch.arange(SIZE * _SAMPLES) + 0.5) / _SAMPLES - SIZE / 2
    across = pixel[None, None, :] - right[:, None, None]
    up = down[:, None, None] - pixel[None, :, None]
    cos = angle.cos()[:, None, None]
    sin = angle.sin()[:, None, None]
    x = (cos * across + sin * up) / radius[:, None, None]
    y = (cos * up - sin * across) / radius[:, None, None]
    distance = torch.empty(len(shape), SIZE * _SAMPLES, SIZE * _SAMPLES)
    for index, name in enumerate(SHAPES):
        rows = (shape == index).nonzero()[:, 0]
        distance[rows] = _SHAPE[name](x[rows], y[rows])
    inside = (0.5 - distance * radius[:, None, None]).clamp(0, 1)
    return torch.nn.functional.avg_pool2d(inside[:, None], _SAMPLES)[:, 0]


def _paint(colour: Tensor, hue: Tensor, value: Tensor) -> Tensor:
    """RGB `[B, 3]` from hue, saturation and value."""
    hsv = torch.tensor([_PAINT[name] for name in COLOURS])[colour]
    turns = hsv[:, 0] + hue
    saturation = hsv[:, 1]
    bright = (hsv[:, 2] + value).clamp(0, 1)
    wheel = (turns[:, None] * 6 + torch.tensor([5.0, 3.0, 1.0])) % 6
    amount = torch.minimum(wheel, 4 - wheel).clamp(0, 1)
    return bright[:, None] * (1 - saturation[:, None] * amount)


def _ground(background: Tensor, bright: Tensor, shift: Tensor) -> Tensor:
    """Grey levels `[B, 32, 32]`; stripes run from top to bottom."""
    level = torch.tensor([_GROUND[name] for name in BACKGROUNDS])[background] + bright
    phase = (torch.arange(SIZE) + 0.5 + shift[:, None]) / _STRIPE
    # distance to the edge of a stripe, in pixels
    wave = ((phase - phase.floor() - 0.5).abs() * 2 - 0.5) * _STRIPE / 2
    stripes = wave.clamp(-0.5, 0.5) * 2 * _CONTRAST
    striped = (background == list(BACKGROUNDS).index("striped")).to(level.dtype)
    return (level[:, None, None] + (striped[:, None] * stripes)[:, None, :]).expand(-1, SIZE, SIZE)
