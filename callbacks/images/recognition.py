"""Results of judged images: shares of recognised images with intervals, and of junk images.

A judge that sees one of its labels in noise cannot say that an image shows nothing, so for it every
concept is gone from a destroyed model's images. Shares of junk images therefore stand beside the
results, and a result has a warning where the judge sees nothing in most of the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from callbacks.images.judging import recognised, seen
from mu.evaluation.images.drawing import ImageRow
from mu.evaluation.images.judges import Judge
from mu.metrics.checks import as_finite_vector
from mu.metrics.rates import Rate, rate
from mu.metrics.results import Result, compute_result


def image_rate(
    values: Tensor, rows: Sequence[ImageRow], names: Sequence[str | None] | None = None
) -> Rate:
    """Share of images in percent, with the interval over distinct images.

    Args:
        values: `[N]`, 1 for an image that counts.
        rows: the images.
        names: group of each image; groups have equal weights, and rows without one are left out.

    Raises:
        UndefinedError: no image has a group, or a value is NaN.
    """
    chosen = [row for row in range(len(rows)) if names is None or names[row]]
    prompts = [rows[row].prompt for row in chosen]
    return rate(
        values[chosen],
        trials=[(rows[row].caption(), rows[row].seed) for row in chosen],
        items=None if None in prompts else prompts,
        groups=None if names is None else [names[row] for row in chosen],
    )


def recognition_results(
    metric: str,
    judge: Judge,
    rows: Sequence[ImageRow],
    requested: Sequence[str | None],
    probabilities: Tensor,
    detail: Mapping[str, Any],
    split: str,
) -> list[Result]:
    """Share of images in which the judge recognises what was requested, over all and by name.

    Args:
        metric: name of the result; `METRIC/NAME` where there are several names.
        judge: judge of the images.
        rows: the images.
        requested: label of each image; None where the prompt names none or several.
        probabilities: probabilities of the judge, `[N, K]`.
        detail: detail of the results.
        split: split name of the results.
    """
    values = recognised(judge, probabilities, requested)
    unnamed = sum(1 for name in requested if not name)
    detail = {
        **detail,
        **judge.detail(),
        "images": len(requested) - unnamed,
        **({"left_out": unnamed} if unnamed else {}),
    }
    return [
        compute_result(
            metric, lambda: image_rate(values, rows, requested), True, split, "%", detail
        ),
        *name_results(metric, values, rows, requested, split, detail),
    ]


def name_results(
    metric: str,
    values: Tensor,
    rows: Sequence[ImageRow],
    names: Sequence[str | None],
    split: str,
    detail: Mapping[str, Any],
    single: bool = False,
) -> list[Result]:
    """Results `METRIC/NAME`, the share of each name's images; none for a single name.

    Args:
        metric: name before the slash.
        values: `[N]`, 1 for an image that counts.
        rows: the images.
        names: name of each; rows without one are left out.
        split: split name of the results.
        detail: detail of the results.
        single: whether a single name has a result too.
    """
    distinct = [name for name in dict.fromkeys(names) if name]
    if len(distinct) < 2 and not single:
        return []
    results = []
    for name in distinct:
        members = [other if other == name else None for other in names]
        count = sum(1 for member in members if member)
        results.append(
            compute_result(
                f"{metric}/{name}",
                partial(image_rate, values, rows, members),
                True,
                split,
                "%",
                {**detail, "images": count},
            )
        )
    return results


def junk_results(judge: Judge, junk: Mapping[str, Tensor]) -> list[Result]:
    """Results `judge/SORT`: share of junk images in which the judge sees one of its labels.

    Args:
        judge: the judge.
        junk: its probabilities `[N, K]` for each sort of junk.
    """
    results = []
    for sort, probabilities in junk.items():
        detail = {**judge.detail(), "images": len(probabilities)}
        if len(probabilities):
            detail["most"] = judge.labels[int(probabilities.argmax(1).mode().values)]
        values = seen(judge, probabilities)
        results.append(
            compute_result(f"judge/{sort}", partial(rate, values), False, "", "%", detail)
        )
    return results


def with_judge_warning(
    result: Result, judge: Judge, probabilities: Tensor, junk: Mapping[str, Tensor]
) -> Result:
    """Result of `UA` with the shares of junk, and a warning where nothing may count as forgotten.

    Args:
        result: the result.
        judge: its judge.
        probabilities: probabilities of the images, `[N, K]`.
        junk: probabilities `[M, K]` for each sort of junk.
    """
    shares = {sort: 100 * float(seen(judge, values).mean()) for sort, values in junk.items()}
    if shares:
        text = ", ".join(f"{share:.0f} % of {sort} images" for sort, share in shares.items())
        result = replace(result, detail={**result.detail, "labels_seen_in_junk": text})
    if result.value is None:
        return result
    warnings = [result.warning] if result.warning else []
    unclear = 100 * float(1 - seen(judge, probabilities).mean())
    if judge.can_reject and not judge.multilabel and unclear > 50:
        warnings.append(
            f"the judge sees none of its labels in {unclear:.0f} % of these images, which may be "
            "destroyed; look at them and at IRA."
        )
    if shares.get("noise", 0.0) > 50:
        warnings.append(
            f"the judge sees one of its labels in {shares['noise']:.0f} % of images of noise, so "
            "destroyed images count as forgotten; give it a label to reject or a confidence."
        )
    return replace(result, warning=" ".join(warnings))


def probability_results(
    judge: Judge,
    probabilities: Tensor,
    concepts: Sequence[str],
    split: str,
    detail: Mapping[str, Any],
) -> list[Result]:
    """Mean probability of the erased concept, and entropy, or images with each label."""
    labels = [judge.label_indices(name) for name in concepts]
    concept_probabilities = torch.stack(
        [
            concept_probability(row[indices], judge)
            for row, indices in zip(probabilities.double(), labels, strict=True)
        ]
    )

    def result(name: str, values: Tensor, scale: float, unit: str, higher: Any) -> Result:
        def compute() -> float:
            return scale * float(as_finite_vector(values, f"{name} of the judge").mean())

        return compute_result(name, compute, higher, split, unit, detail)

    results = [result("UA/probability", concept_probabilities, 100, "%", False)]
    if not judge.multilabel:
        entropies = torch.special.entr(probabilities.double()).sum(1)
        return [*results, result("UA/entropy", entropies, 1, "nats", None)]
    shows = (probabilities >= (judge.threshold or 0.5)).double()
    shows[~probabilities.isfinite()] = torch.nan
    for label, values in zip(judge.labels, shows.unbind(1), strict=True):
        results.append(result(f"UA/images/{label}", values, len(values), "", False))
    return results


def concept_probability(probabilities: Tensor, judge: Judge) -> Tensor:
    """Probability of a concept from those of its labels: largest of multilabel judges, else sum."""
    return probabilities.max() if judge.multilabel else probabilities.sum()
