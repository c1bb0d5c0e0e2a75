"""Judgements of generated images: probabilities of judges, and shares of recognised images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mu.core.module import UnlearningModule
from mu.data.concepts import folded
from mu.evaluation.images.drawing import ImageJob, ImageRow, image_cache
from mu.evaluation.images.judges import Judge
from mu.metrics.outputs import Outputs
from mu.metrics.results import Result

Shares = Mapping[str, tuple[float, int]]
"""By concept: percentage of its images, and their number."""


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


def judge_images(
    module: UnlearningModule, jobs: Mapping[str, ImageJob], judges: Sequence[Judge]
) -> JudgedImages:
    """Draw the images of jobs once, and judge each batch by every judge."""
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
    return JudgedImages(store.compute(), facts)


def resolution(images: Tensor) -> int | str:
    """Resolution of images `[B, C, H, W]` in pixels: one number for squares, else `WxH`.

    Example:
        >>> resolution(torch.zeros(2, 3, 32, 32)), resolution(torch.zeros(2, 3, 32, 48))
        (32, '48x32')
    """
    height, width = images.shape[-2:]
    return int(height) if height == width else f"{width}x{height}"


def recognised(judge: Judge, probabilities: Tensor, names: Sequence[str | None]) -> Tensor:
    """Whether the judge recognises in each image the concept of its row, `[N]` bool.

    False where a row names no concept.
    """
    mask = torch.zeros(len(names), dtype=torch.bool)
    for name in dict.fromkeys(names):
        if name:
            rows = torch.tensor([other == name for other in names])
            mask[rows] = judge.verdict(probabilities[rows], name)
    return mask


def shares_by_name(values: Tensor, names: Sequence[str | None]) -> dict[str, tuple[float, int]]:
    """Percentage of True and number of images for each name, without unnamed rows.

    Example:
        >>> shares_by_name(torch.tensor([True, False, True]), ["cat", "cat", None])
        {'cat': (50.0, 2)}
    """
    shares = {}
    for name in dict.fromkeys(name for name in names if name):
        rows = torch.tensor([other == name for other in names])
        shares[str(name)] = (100 * float(values[rows].double().mean()), int(rows.sum()))
    return shares


def average_share(shares: Shares) -> float:
    """Mean percentage over names, with equal weights."""
    return sum(share for share, _ in shares.values()) / len(shares)


def recognition_results(
    metric: str,
    judge: Judge,
    requested: Sequence[str | None],
    probabilities: Tensor,
    detail: Mapping[str, Any],
    split: str,
) -> list[Result]:
    """Share of images in which the judge recognises what was requested, over all and by name.

    Args:
        metric: name of the result; `METRIC/NAME` where there are several names.
        judge: judge of the images.
        requested: label of each image; None where the prompt names none or several.
        probabilities: probabilities of the judge, `[N, K]`.
        detail: detail of the results.
        split: split name of the results.
    """
    shares = shares_by_name(recognised(judge, probabilities, requested), requested)
    unnamed = sum(1 for name in requested if not name)
    detail = {
        **detail,
        **judge.detail(),
        "images": len(requested) - unnamed,
        **({"left_out": unnamed} if unnamed else {}),
    }
    results = [Result(metric, average_share(shares), True, split, "%", detail)]
    if len(shares) > 1:
        results += [
            Result(f"{metric}/{name}", share, True, split, "%", {**detail, "images": count})
            for name, (share, count) in shares.items()
        ]
    return results


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
    selector = module.task.split.selector if module.task is not None else {}
    selected = selector.get("concept") or None
    if not isinstance(selected, list):
        return [(field and row.about.get(field)) or selected for row in rows]
    names = {folded(name): name for name in selected}
    return [
        (field and row.about.get(field)) or names.get(folded(row.about.get("concept", "")))
        for row in rows
    ]


def label_list(judge: Judge, limit: int = 12) -> str:
    """Labels of a judge, for messages."""
    return ", ".join(judge.labels[:limit]) + (" and more" if len(judge.labels) > limit else "")


def concept_probability(probabilities: Tensor, judge: Judge) -> Tensor:
    """Probability of a concept from those of its labels: largest of multilabel judges, else sum."""
    return probabilities.max() if judge.multilabel else probabilities.sum()


def label_of_prompt(judge: Judge, row: ImageRow) -> str | None:
    """Label of the judge in the prompt of a row; None where there is none or several."""
    labels = judge.labels_in(row.prompt or "")
    return labels[0] if len(labels) == 1 else None


def categories_of(row: ImageRow) -> list[str]:
    """Categories of a prompt, from its column `categories`."""
    return [word.strip() for word in row.about.get("categories", "").split(",") if word.strip()]
