"""Concept erasure: unlearning accuracy and retain accuracies of generated images, by judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from callbacks.base import Evaluated, Suite
from callbacks.images.judging import (
    JudgedImages,
    categories_of,
    erased_concepts,
    judge_images,
    label_list,
    label_of_prompt,
    recognised,
    seen,
    selected_concepts,
)
from callbacks.images.recognition import (
    image_rate,
    junk_results,
    name_results,
    probability_results,
    recognition_results,
    with_judge_warning,
)
from mu.core.module import UnlearningModule
from mu.evaluation.images.drawing import ImageJob, ImageRow
from mu.evaluation.images.judges import Judge
from mu.evaluation.images.sets import ImageSet
from mu.metrics.rates import Rate
from mu.metrics.results import Result, TradeOff, compute_result
from mu.utils.errors import InputError

METRICS = ("UA", "IRA", "CRA")


class ConceptErasure(Suite):
    """Unlearning accuracy and retain accuracies of generated images: UA, IRA and CRA, in percent.

    The three are those of UnlearnCanvas (Zhang et al., NeurIPS 2024 Datasets and Benchmarks, arXiv
    2402.11846); higher is better.

    `UA` is the share of images drawn for the erased concept in which the judge does not recognise
    it. `IRA` (in-domain) is the share of images drawn for other concepts of the same kind in which
    the judge recognises the requested concept. `CRA` (cross-domain) is the same for attributes of
    another kind (the colour, where a shape is erased), over the images of both sets, and as
    `CRA/erased` and `CRA/kept` over each; each further judge is for one attribute. All are averaged
    over concepts with equal weights, and reported for each concept, as `UA/concept`, where there
    are several.

    `UA/probability` is the mean probability that the judge gives to the erased concept,
    `UA/entropy` the mean entropy of its probabilities in nats (both as SalUn's class-wise
    forgetting reports them). `UA/unclear` is the share of images in which a judge that can say so
    sees none of its labels (see `Judge`); `judge/noise`, `judge/constant` and `judge/shuffled` are
    the shares of 64 junk images each in which it sees one. Where prompts have `categories`,
    `UA/category` gives each; a judge of several labels at once also counts the images with each
    label, `UA/images/LABEL`.

    The requested concept of a class is the judge's label of that number; of a prompt, its column
    `field`, or the one label of the judge in its text. Prompts with none or several are left out
    and counted in the detail.

    Args:
        judge: judge of the erased concept's attribute.
        erased: images of the erased concept; the task's forget part when None.
        kept: images of retained concepts; the task's retain part when None.
        cross: judges of other attributes, for CRA.
        concept: the erased concept, as the judge names it; when None, that of each row's class or
            column `field`, or of the task's selector.
        field: column or text field that names each prompt's concept.
        metrics: names among UA, IRA and CRA; when None, UA and IRA, and CRA where `cross` has
            judges.
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "UA": "Unlearning accuracy: share of the images generated for what was erased in which an "
        "external judge does not see it, in percent; higher is better.",
        "UA/probability": "Mean probability that the judge gives to what was erased, in percent.",
        "UA/entropy": "Mean entropy of the judge's probabilities on these images, in nats.",
        "UA/images/": "Number of images in which the judge sees that label.",
        "UA/unclear": "Share of the images for what was erased in which the judge sees none of its "
        "labels, in percent; destroyed images are among them.",
        "UA/": "As UA, on that part of the images.",
        "IRA": "In-domain retain accuracy: share of the images of other concepts of the same kind "
        "(the other objects, when an object was erased) in which the judge sees what was asked "
        "for, in percent; higher is better.",
        "IRA/": "As IRA, on that part of the images.",
        "CRA": "Cross-domain retain accuracy: the same for concepts of another kind (the styles, "
        "when an object was erased).",
        "CRA/": "As CRA, on that part of the images.",
        "judge/": "Share of junk images (noise, one colour, shuffled patches of images) in which "
        "the judge sees one of its labels, in percent. For a judge that sees labels in junk, UA is "
        "high for a model that draws junk too.",
    }
    trade_offs = (
        TradeOff(
            "Forgetting and what is kept", ("UA",), ("IRA", "CRA"), "UA: erased concept not seen"
        ),
    )

    def __init__(
        self,
        judge: Judge,
        erased: ImageSet | None = None,
        kept: ImageSet | None = None,
        cross: list[Judge] | None = None,
        concept: str | None = None,
        field: str | None = None,
        metrics: list[str] | None = None,
    ) -> None:
        self.judge = judge
        self.cross = list(cross or [])
        self.erased = erased or ImageSet("forget")
        self.kept = kept or ImageSet("retain")
        self.concept = concept
        self.field = field
        self.metrics = (
            [name for name in METRICS if name != "CRA" or self.cross]
            if metrics is None
            else list(metrics)
        )
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise InputError(
                f"ConceptErasure measures {', '.join(METRICS)}, not "
                f"{unknown[0] if unknown else 'nothing'}."
            )
        if "CRA" in self.metrics and not self.cross:
            raise InputError("CRA needs a judge of another attribute; give cross.")

    def check(self) -> None:
        """Read the judges' weights, and look for the concept among their labels."""
        for judge in (self.judge, *self.cross):
            judge.load()
        if self.concept is not None:
            self.judge.label_indices(self.concept)

    def check_run(self, module: UnlearningModule) -> None:
        """Check the sets of images, and that the judge has a label for what was erased."""
        self.erased.check(module)
        if self.metrics != ["UA"]:
            self.kept.check(module)
        if self.erased.file is not None:
            self._concepts(self.erased.rows(module), module)
        elif self.concept is None and self.field is None and hasattr(module.backbone, "texts"):
            for name in selected_concepts(module):
                self.judge.label_indices(name)

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Results `UA`, `IRA` and `CRA` with their parts, in this order."""
        # jobs, and requested concepts of their images
        sets = {"erased": self.erased}
        if self.metrics != ["UA"]:
            sets["kept"] = self.kept
        jobs = {name: images.job(module) for name, images in sets.items()}
        concepts = self._concepts(jobs["erased"].rows, module)
        requested = []
        if "IRA" in self.metrics:
            requested = self._requested(jobs["kept"].rows, set(concepts), module)
        # probabilities of the judges
        judged = judge_images(module, jobs, [self.judge, *self.cross], list(jobs)[-1])
        detail = {
            name: {**sets[name].detail(module, job), **judged.facts} for name, job in jobs.items()
        }
        # results
        results: list[Result] = []
        if "UA" in self.metrics:
            probabilities = judged.probabilities("erased", 0)
            results += self._erasure(
                jobs["erased"].rows, concepts, probabilities, detail["erased"], judged.junk()
            )
        if "IRA" in self.metrics:
            probabilities = judged.probabilities("kept", 0)
            results += recognition_results(
                "IRA",
                self.judge,
                jobs["kept"].rows,
                requested,
                probabilities,
                detail["kept"],
                self.kept.name,
            )
        if "CRA" in self.metrics:
            results += self._cross_domain(jobs, judged, detail["erased"])
        return results + junk_results(self.judge, judged.junk())

    # ---- requested concepts ----------------------------------------------------------------------

    def _concepts(self, rows: Sequence[ImageRow], module: UnlearningModule) -> list[str]:
        """Erased concept of each row."""
        concepts = [
            self.concept or self._class_label(row, module) or name
            for row, name in zip(rows, erased_concepts(rows, module, self.field), strict=True)
        ]
        if not all(concepts):
            raise InputError(
                "neither the prompts nor the task say which concept was erased; give concept, or "
                f"the column that names it as field. The judge {self.judge.name} knows "
                f"{label_list(self.judge)}."
            )
        for name in dict.fromkeys(concepts):
            self.judge.label_indices(str(name))
        return [str(name) for name in concepts]

    def _class_label(self, row: ImageRow, module: UnlearningModule) -> str | None:
        """Label of the judge for the class of a row."""
        if row.label is None:
            return None
        labels = self.judge.class_labels
        classes = getattr(module.served(), "num_classes", len(labels))
        if classes != len(labels):
            raise InputError(
                f"the model has {classes} classes and the judge {self.judge.name} "
                f"{len(labels)} labels, so they are not the same; take a judge of these classes."
            )
        return labels[row.label]

    def _requested(
        self, rows: Sequence[ImageRow], erased: set[str], module: UnlearningModule
    ) -> list[str | None]:
        """Requested concept of each kept row, as a label of the judge."""
        requested = [
            self._class_label(row, module)
            or (self.field and row.about.get(self.field))
            or label_of_prompt(self.judge, row)
            for row in rows
        ]
        names = [str(name) for name in requested if name]
        if not names:
            raise InputError(
                f"no prompt of the kept images names one label of the judge {self.judge.name} "
                f"({label_list(self.judge)}); give the column that does as field, another judge, "
                "or metrics: [UA]."
            )
        erased_labels = {index for name in erased for index in self.judge.label_indices(name)}
        mixed = sum(1 for name in names if erased_labels & set(self.judge.label_indices(name)))
        if mixed:
            raise InputError(
                f"{mixed} of {len(rows)} kept images ask for the erased concept "
                f"({', '.join(sorted(erased))}); leave them out with `without`, or choose another "
                "part."
            )
        return [name or None for name in requested]

    # ---- results ---------------------------------------------------------------------------------

    def _erasure(
        self,
        rows: Sequence[ImageRow],
        concepts: Sequence[str],
        probabilities: Tensor,
        detail: dict[str, Any],
        junk: Mapping[str, Tensor],
    ) -> list[Result]:
        """`UA`, by concept and by category, and the judge's probabilities and entropies."""
        values = recognised(self.judge, probabilities, concepts)
        erased = 1 - values
        names = list(dict.fromkeys(concepts))
        detail = {**detail, **self.judge.detail(), "concept": ", ".join(names)}
        split = self.erased.name
        # shares
        overall = compute_result(
            "UA", lambda: image_rate(erased, rows, concepts), True, split, "%", detail
        )
        results = [with_judge_warning(overall, self.judge, probabilities, junk)]
        for result in name_results("UA", erased, rows, concepts, split, detail):
            concept = result.metric.removeprefix("UA/")
            results.append(replace(result, detail={**result.detail, "concept": concept}))
        if self.judge.can_reject and not self.judge.multilabel:
            unclear = 1 - seen(self.judge, probabilities)
            results.append(
                compute_result(
                    "UA/unclear", lambda: image_rate(unclear, rows), None, split, "%", detail
                )
            )
        # probabilities
        results += probability_results(self.judge, probabilities, concepts, split, detail)
        # categories
        categories = list(dict.fromkeys(name for row in rows for name in categories_of(row)))
        for name in categories:
            members = [name if name in categories_of(row) else None for row in rows]
            for result in name_results("UA", erased, rows, members, split, detail, single=True):
                results.append(replace(result, detail={**result.detail, "category": name}))
        return results

    def _cross_domain(
        self, jobs: Mapping[str, ImageJob], judged: JudgedImages, detail: Mapping[str, Any]
    ) -> list[Result]:
        """`CRA` over both sets together, over each, and for each label."""
        sets = {"": list(jobs), **{name: [name] for name in jobs}}
        common = self._common_detail(detail)
        rates: dict[str, list[Callable[[], Rate]]] = {name: [] for name in sets}
        by_label: list[Result] = []
        left_out = dict.fromkeys(sets, 0)
        # rates of each judge, over both sets and over each
        for position, judge in enumerate(self.cross, 1):
            requested = _requested_labels(judge, jobs)
            for name, members in sets.items():
                rows = [row for member in members for row in jobs[member].rows]
                labels = [label for member in members for label in requested[member]]
                left_out[name] += sum(1 for label in labels if not label)
                if not any(labels):
                    continue
                probabilities = torch.cat(
                    [judged.probabilities(member, position) for member in members]
                )
                values = recognised(judge, probabilities, labels)
                rates[name].append(partial(image_rate, values, rows, labels))
                if not name:
                    about = {**common, **judge.detail()}
                    by_label += name_results("CRA", values, rows, labels, "", about, single=True)
        # their mean over judges
        common |= _joined_details(self.cross)
        results = []
        for name, computations in rates.items():
            if not computations:
                continue
            detail = {
                **common,
                "images": sum(len(jobs[member].rows) for member in sets[name]),
                "prompts": sum(len(jobs[member].subjects) for member in sets[name]),
                **({"left_out": left_out[name]} if left_out[name] else {}),
            }
            metric = f"CRA/{name}" if name else "CRA"
            compute = partial(_mean_rate, computations)
            results.append(compute_result(metric, compute, True, name, "%", detail))
        return results + by_label

    def _common_detail(self, detail: Mapping[str, Any]) -> dict[str, Any]:
        """Sampler, resolution and limits of the images of both sets."""
        common = {name: detail[name] for name in detail if name in ("sampler", "resolution")}
        limits = [
            f"{images.limit} {name}"
            for name, images in (("erased", self.erased), ("kept", self.kept))
            if images.limit is not None
        ]
        return common | ({"limit": ", ".join(limits)} if limits else {})


def _requested_labels(judge: Judge, jobs: Mapping[str, ImageJob]) -> dict[str, list[str | None]]:
    """Requested label of each prompt of each job, among those of a judge."""
    requested = {
        name: [label_of_prompt(judge, row) for row in job.rows] for name, job in jobs.items()
    }
    if not any(label for labels in requested.values() for label in labels):
        raise InputError(
            f"no prompt names one label of the judge {judge.name} ({label_list(judge)}); CRA needs "
            "prompts that do."
        )
    return requested


def _mean_rate(computations: Sequence[Callable[[], Rate]]) -> Rate | float:
    """Rate of one judge, or the mean over several, which has no interval."""
    rates = [compute() for compute in computations]
    return rates[0] if len(rates) == 1 else sum(share.percent for share in rates) / len(rates)


def _joined_details(judges: Sequence[Judge]) -> dict[str, Any]:
    """Details of several judges under the keys of one."""
    details = [judge.detail() for judge in judges]
    if len(details) == 1:
        return details[0]
    return {key: ", ".join(str(other.get(key, "")) for other in details) for key in details[0]}
