"""Files of `mu generate`: the page, a table, the settings, and images."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mu.cli.generation.prompts import PromptRow
from mu.evaluation.images.png import write_png
from mu.utils.files import write_json, write_text
from mu.utils.pages import page_template
from mu.utils.version import __version__

PAGE = "index.html"
TABLE = "generations.csv"
SETTINGS = "generations.json"
_FORMAT = 1
_SMALL = 128
"""Widest image in pixels that is enlarged without smoothing."""


@dataclass(frozen=True)
class Column:
    """Outputs of one model.

    Attributes:
        name: name of the model.
        source: where the model comes from, as it was written.
        weights: hash of its weights.
        template: template around the prompts; empty for images.
        outputs: answers, or paths of image files in the folder, by row.
        width: width of the images in pixels; 0 for answers.
    """

    name: str
    source: str
    weights: str
    template: str
    outputs: list[str]
    width: int = 0


@dataclass(frozen=True)
class Generations:
    """Prompts, and the outputs of each model.

    Attributes:
        command: the command line.
        settings: sampling options in words, by name.
        rows: the prompts.
        columns: the models.
        is_random: whether the outputs depend on the seeds.
    """

    command: str
    settings: Mapping[str, Any]
    rows: Sequence[PromptRow]
    is_random: bool
    columns: list[Column] = field(default_factory=list)

    @property
    def has_truth(self) -> bool:
        """Whether a row has a true answer."""
        return any(row.truth for row in self.rows)


def save_images(
    folder: Path, name: str, images: Sequence[Tensor], seeds: Sequence[int]
) -> list[str]:
    """Write images as PNG files; returns their paths in the folder.

    Args:
        folder: folder of the page.
        name: name of the model's folder.
        images: `[C, H, W]` uint8 each.
        seeds: seed of each, for the file name.
    """
    digits = len(str(len(images) - 1))
    paths = [f"images/{name}/{index:0{digits}}_seed{seed}.png" for index, seed in enumerate(seeds)]
    for path, image in zip(paths, images, strict=True):
        write_png(folder / path, image)
    return paths


def write_files(folder: Path, generations: Generations) -> None:
    """Write the page, the table and the settings."""
    template = page_template("mu.cli.generation", "page.html.jinja")
    write_text(folder / PAGE, template.render(page=generations, small=_SMALL, version=__version__))
    write_text(folder / TABLE, _table(generations))
    write_json(folder / SETTINGS, _content(generations))


def _table(generations: Generations) -> str:
    """CSV with a row for each prompt and a column for each model."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    truth = ["truth"] if generations.has_truth else []
    writer.writerow(["prompt", "seed", *truth, *(column.name for column in generations.columns)])
    for index, row in enumerate(generations.rows):
        outputs = [column.outputs[index] for column in generations.columns]
        writer.writerow([row.text, row.seed, *([row.truth] if truth else []), *outputs])
    return text.getvalue()


def _content(generations: Generations) -> dict[str, Any]:
    """Everything as plain data."""
    return {
        "format": _FORMAT,
        "mu": __version__,
        "command": generations.command,
        "settings": dict(generations.settings),
        "rows": [asdict(row) for row in generations.rows],
        "models": [asdict(column) for column in generations.columns],
    }
