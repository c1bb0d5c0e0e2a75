"""Image grids and text examples for reports, in the folder `media/` of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mu.evaluation.images.drawing import levels
from mu.evaluation.images.png import write_png
from mu.utils.errors import InputError
from mu.utils.files import read_json, write_json

INDEX = "media.json"
_GAP = 2  # pixels between two images


def grid(images: Sequence[Tensor], columns: int) -> Tensor:
    """Image grid, row by row, with white lines between the images.

    Args:
        images: images `[C, H, W]` in [0, 1] of equal size; a multiple of `columns`.
        columns: images in a row.

    Returns:
        `[C, rows (H + 2) − 2, columns (W + 2) − 2]` uint8.

    Raises:
        InputError: when the images differ in size or do not fill the rows.

    >>> grid([torch.zeros(3, 4, 4)] * 6, columns=3).shape
    torch.Size([3, 10, 16])
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
    """Write an image grid into `folder/media/NAME.png`, with an entry in `media.json`.

    An entry of the same name is replaced.

    Args:
        folder: the run folder.
        name: file name without `.png`.
        images: row by row, see `grid`.
        title: heading in the report.
        group: `erased`, `kept` or `attack`.
        rows: labels of the rows.
        columns: labels of the columns.

    Returns:
        The file.
    """
    media = Path(folder) / "media"
    file = media / f"{name}.png"
    if len(images) != len(rows) * len(columns):
        raise InputError(f"{len(images)} images are not {len(rows)} rows of {len(columns)}.")
    write_png(file, grid(images, len(columns)))
    _add_entry(file, {"title": title, "group": group, "rows": list(rows), "columns": list(columns)})
    return file


def add_examples(
    folder: Path | str, name: str, rows: Sequence[Mapping[str, str]], *, title: str, group: str
) -> Path:
    """Write text examples into `folder/media/NAME.json`, with an entry in `media.json`.

    An entry of the same name is replaced.

    Args:
        folder: the run folder.
        name: file name without `.json`.
        rows: mappings with `prompt`, `answer` and, optionally, `truth`.
        title: heading in the report.
        group: `forget`, `retain`.

    Returns:
        The file.
    """
    file = Path(folder) / "media" / f"{name}.json"
    write_json(file, [dict(row) for row in rows])
    _add_entry(file, {"kind": "text", "title": title, "group": group})
    return file


def _add_entry(file: Path, about: Mapping[str, Any]) -> None:
    """Add or replace the entry of a file in `media.json`."""
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
