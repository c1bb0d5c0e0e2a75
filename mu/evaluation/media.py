"""Pictures and texts for the report: files in a run folder's `media/`, and `media.json`, which says
what each shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mu.evaluation.images.drawing import levels, write_png
from mu.utils.errors import InputError
from mu.utils.files import read_json, write_json

INDEX = "media.json"
_GAP = 2  # pixels between two images


def grid(images: Sequence[Tensor], columns: int) -> Tensor:
    """One picture of many, row by row, with a white line between them.

    Args:
        images: each `[C, H, W]` in [0, 1], all of one size.
        columns: images in a row.

    Returns:
        `[C, rows (H + 2) − 2, columns (W + 2) − 2]` uint8.
    """
    if not images or len(images) % columns:
        raise InputError(f"{len(images)} images do not make rows of {columns}.")
    if len({image.shape for image in images}) > 1:
        raise InputError("the images of a grid differ in size.")
    channels, height, width = images[0].shape
    rows = len(images) // columns
    canvas = torch.full(
        (channels, rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP),
        255,
        dtype=torch.uint8,
    )
    for index, image in enumerate(images):
        y = (index // columns) * (height + _GAP)
        x = (index % columns) * (width + _GAP)
        canvas[:, y : y + height, x : x + width] = levels(image).cpu()
    return canvas


def add_grid(
    folder: Path | str,
    name: str,
    images: Sequence[Tensor],
    *,
    title: str,
    group: str,
    rows: Sequence[str],
    columns: Sequence[str],
) -> Path:
    """Write a grid into `folder/media/NAME.png`, and say so in `media.json`; an entry of the same
    name is replaced.

    Args:
        folder: the run's.
        name: of the file, without `.png`.
        images: row by row, see `grid`.
        title: for the report.
        group: `erased`, `kept` or `attack`.
        rows: what each row shows.
        columns: what each column shows.

    Returns:
        The file.
    """
    media = Path(folder) / "media"
    file = media / f"{name}.png"
    if len(images) != len(rows) * len(columns):
        raise InputError(f"{len(images)} images are not {len(rows)} rows of {len(columns)}.")
    write_png(file, grid(images, len(columns)))
    _enter(file, {"title": title, "group": group, "rows": list(rows), "columns": list(columns)})
    return file


def add_examples(
    folder: Path | str, name: str, rows: Sequence[Mapping[str, str]], *, title: str, group: str
) -> Path:
    """Write examples of text into `folder/media/NAME.json`, and say so in `media.json`; an entry of
    the same name is replaced.

    Args:
        folder: the run's.
        name: of the file, without `.json`.
        rows: each has `prompt` and `answer`, and perhaps `truth`.
        title: for the report.
        group: `forget`, `retain`.

    Returns:
        The file.
    """
    file = Path(folder) / "media" / f"{name}.json"
    write_json(file, [dict(row) for row in rows])
    _enter(file, {"kind": "text", "title": title, "group": group})
    return file


def _enter(file: Path, about: Mapping[str, Any]) -> None:
    """An entry in the `media.json` beside a file, in place of one for the same file."""
    index = file.parent / INDEX
    entries = []
    if index.is_file():
        stored = read_json(index)
        if not isinstance(stored, list):
            raise InputError(f"{index} is not a list of entries; remove it.")
        entries = [
            entry
            for entry in stored
            if not isinstance(entry, dict) or entry.get("file") != file.name
        ]
    write_json(index, [*entries, {"file": file.name, **about}])
