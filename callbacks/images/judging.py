"""Judgements of generated images and of junk images by judges, and the concepts of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mu.core.module import UnlearningModule
from mu.data.concepts import folded
from mu.evaluation.images.drawing import ImageJob, ImageRow, image_cache
from mu.evaluation.images.judges import Judge
from mu.evaluation.images.junk import JUNK, junk_images
from mu.metrics.outputs import Outputs

JUNK_IMAGES = 64
"""Number of images of each sort of junk."""


class JudgedImages:
    """Probabilities of every judge for the images of some jobs, gathered from all ranks.

    Attributes:
        facts: `resolution` of the images in pixels (one number for squares).
    """

    def __init__(self, tables: Mapping[str, Mapping[str, Tensor]], facts: dict[str, Any]) -> None:
        self._tables = tables
        self.facts = facts

    def probabilities(self, job: str, judge: int) -> Tensor:
        """Probabilities `[N, K]` of a job's images, in the order of its rows, on the CPU."""
        return self._tables[job][f"probability{judge}"].cpu()

    def junk(self) -> dict[str, Tensor]:
        """Probabilities `[N, K]` of the first judge for each sort of junk images."""
        return {
            sort: self._tables[f"junk/{sort}"]["probability0"].cpu()
            for sort in JUNK
            if f"junk/{sort}" in self._tables
        }


def judge_images(
    module: UnlearningModule,
    jobs: Mapping[str, ImageJob],
    judges: Sequence[Judge],
    junk_of: str | None = None,
) -> JudgedImages:
    """Draw the images of jobs once, and judge each batch by every judge.

    Args:
        module: the module under test.
        jobs: image jobs by name.
        judges: the judges.
        junk_of: name of a job of whose images 64 junk images of each sort are made, for the first
            judge.
    """
    store = Outputs().to(module.device)
    facts = {}
    for name, job in jobs.items():
        for images, positions in image_cache(module).images(job):
            facts["resolution"] = resolution(images)
            probabilities = {
                f"probability{index}": judge.judge(images).float()
                for index, judge in enumerate(judges)
            }
            index = torch.tensor(positions, device=images.device)
            store.update(name, {"index": index, **probabilities})
            if name == junk_of:
                _judge_junk(store, judges[0], images, positions, len(job.rows))
    return JudgedImages(store.compute(), facts)


def _judge_junk(
    store: Outputs, judge: Judge, images: Tensor, positions: Sequence[int], count: int
) -> None:
    """Judge junk made of a batch of a job of `count` images, several of each where they are few."""
    pairs = [
        (row, index)
        for row, position in enumerate(positions)
        for index in range(position, JUNK_IMAGES, count)
    ]
    if not pairs:
        return
    rows, indices = (list(values) for values in zip(*pairs, strict=True))
    index = torch.tensor(indices, device=images.device)
    for sort, junk in junk_images(images[rows], indices).items():
        probabilities = judge.judge(junk).float()
        store.update(f"junk/{sort}", {"index": index, "probability0": probabilities})


def resolution(images: Tensor) -> int | str:
    """Resolution of images `[B, C, H, W]` in pixels: one number for squares, else `WxH`.

    Example:
        >>> resolution(torch.zeros(2, 3, 32, 32)), resolution(torch.zeros(2, 3, 32, 48))
        (32, '48x32')
    """
    height, width = images.shape[-2:]
    return int(height) if height == width else f"{width}x{height}"


def recognised(judge: Judge, probabilities: Tensor, names: Sequence[str | None]) -> Tensor:
    """Whether the judge recognises in each image the concept of its row, `[N]` float64.

    1 or 0; 0 where a row names no concept; NaN where the judge's probabilities are not finite.
    """
    values = torch.zeros(len(names), dtype=torch.float64)
    for name in dict.fromkeys(names):
        if name:
            rows = torch.tensor([other == name for other in names])
            values[rows] = judge.verdict(probabilities[rows], name).double()
    values[~probabilities.isfinite().all(1)] = torch.nan
    return values


def seen(judge: Judge, probabilities: Tensor) -> Tensor:
    """Whether the judge sees any label in each image, `[N]` float64; NaN as in `recognised`."""
    values = judge.sees(probabilities).double()
    values[~probabilities.isfinite().all(1)] = torch.nan
    return values


def selected_concepts(module: UnlearningModule) -> list[str]:
    """Erased concepts that the task's selector names; none without a task or a concept."""
    selector = module.task.split.selector if module.task is not None else {}
    concept = selector.get("concept") or []
    return concept if isinstance(concept, list) else [concept]


def erased_concepts(
    rows: Sequence[ImageRow], module: UnlearningModule, field: str | None = None
) -> list[str | None]:
    """Erased concept of each row; None where neither the row nor the task names one.

    Args:
        rows: images for what was erased.
        module: its task's selector names the erased concept, or several, among which a row's
            column `concept` chooses.
        field: column that names each row's concept, in place of the task.
    """
    selected = selected_concepts(module)
    if len(selected) < 2:
        concept = selected[0] if selected else None
        return [(field and row.about.get(field)) or concept for row in rows]
    names = {folded(name): name for name in selected}
    words = [row.about.get("concept", "") for row in rows]
    # a prompt may name the concept by a synonym, which the judge translates
    return [
        (field and row.about.get(field)) or names.get(folded(word), word) or None
        for row, word in zip(rows, words, strict=True)
    ]


def label_list(judge: Judge, limit: int = 12) -> str:
    """Labels of a judge, for messages."""
    return ", ".join(judge.labels[:limit]) + (" and more" if len(judge.labels) > limit else "")


def label_of_prompt(judge: Judge, row: ImageRow) -> str | None:
    """Label of the judge in the prompt of a row; None where there is none or several."""
    labels = judge.labels_in(row.prompt or "")
    return labels[0] if len(labels) == 1 else None


def categories_of(row: ImageRow) -> list[str]:
    """Categories of a prompt, from its column `categories`."""
    return [word.strip() for word in row.about.get("categories", "").split(",") if word.strip()]
