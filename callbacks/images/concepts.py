"""Concept erasure: does the model still draw what was erased, and does it draw the rest?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.base import Evaluated, Suite
from mu.core.module import UnlearningModule
from mu.evaluation.images.drawing import ImageJob, ImageRow, image_cache
from mu.evaluation.images.judges import Judge
from mu.evaluation.images.sets import ImageSet
from mu.metrics.outputs import Outputs
from mu.metrics.results import Result, TradeOff
from mu.utils.errors import InputError

METRICS = ("UA", "IRA", "CRA")


class ConceptErasure(Suite):
    """Is the erased concept still drawn, and is the rest still right? UA, IRA and CRA, in percent,
    by a judge of images.

    The three are those of UnlearnCanvas (Zhang et al., NeurIPS 2024 Datasets and Benchmarks, arXiv
    2402.11846); higher is better.

    `UA` is the share of images drawn for the erased concept in which the judge does not recognise
    it. `IRA` (in-domain) is the share of images drawn for other concepts of the same kind in which
    the judge recognises what was asked for. `CRA` (cross-domain) is the same for attributes of
    another kind (the colour, where a shape is erased), over the images of both sets, which
    `CRA/erased` and `CRA/kept` give apart; each further judge knows one attribute. All are averaged
    over concepts (each concept's share counts alike), and given for each concept, as `UA/concept`,
    where there are several.

    `UA/probability` is the mean probability that the judge gives to the erased concept,
    `UA/entropy` the mean entropy of its probabilities in nats (both as SalUn's class-wise
    forgetting reports them). Where prompts have `categories`, `UA/category` gives each; a judge of
    several labels at once also counts the images with each label, `UA/images/LABEL`.

    What was asked for is, of a class, the judge's label of that number; of a prompt, its column
    `field`, or the one label of the judge that stands in it. Prompts that name none or several are
    left out and counted in the detail.

    Args:
        judge: of the erased concept's kind.
        erased: images of what was erased; the task's forget part when None.
        kept: images of what stays; the task's retain part when None.
        cross: judges of other attributes, for CRA.
        concept: the erased concept, as the judge names it; when None, what each row's column
            `field` or the task's selector says.
        field: column or text field that names each prompt's concept.
        metrics: which of UA, IRA and CRA; UA and IRA, and CRA where there is a judge for it, when
            None.
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "UA": "Unlearning accuracy: share of the images generated for what was erased in which an "
        "external judge does not see it, in percent; higher is better.",
        "UA/probability": "Mean probability that the judge gives to what was erased, in percent.",
        "UA/entropy": "Mean entropy of the judge's probabilities on these images, in nats.",
        "UA/images/": "Number of images in which the judge sees that label.",
        "UA/": "As UA, on that part of the images.",
        "IRA": "In-domain retain accuracy: share of the images of other concepts of the same kind "
        "(the other objects, when an object was erased) in which the judge sees what was asked "
        "for, in percent; higher is better.",
        "IRA/": "As IRA, on that part of the images.",
        "CRA": "Cross-domain retain accuracy: the same for concepts of another kind (the styles, "
        "when an object was erased).",
        "CRA/": "As CRA, on that part of the images.",
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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the judges' weights before anything is drawn."""
        super().setup(trainer, pl_module, stage)
        if stage == "test":
            for judge in (self.judge, *self.cross):
                judge.load()
            if self.concept is not None:
                self.judge.label_indices(self.concept)

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """The named metrics, in this order."""
        sets = (
            {"erased": self.erased, "kept": self.kept}
            if self.metrics != ["UA"]
            else {"erased": self.erased}
        )
        jobs = {name: images.job(module) for name, images in sets.items()}
        concepts = self._concepts(jobs["erased"].rows, module)
        asked = (
            self._asked(jobs["kept"].rows, set(concepts), module) if "IRA" in self.metrics else []
        )
        seen = judged(module, jobs, [self.judge, *self.cross])
        found: list[Result] = []
        detail = {
            name: {**sets[name].detail(module, job), **seen.facts} for name, job in jobs.items()
        }
        if "UA" in self.metrics:
            found += self._erasure(
                jobs["erased"].rows, concepts, seen.of("erased", 0), detail["erased"]
            )
        if "IRA" in self.metrics:
            found += self._in_domain(asked, seen.of("kept", 0), detail["kept"])
        if "CRA" in self.metrics:
            found += self._cross_domain(jobs, seen, detail)
        return found

    # ---- what was asked for ----------------------------------------------------------------------

    def _concepts(self, rows: Sequence[ImageRow], module: UnlearningModule) -> list[str]:
        """The erased concept of each row."""
        selector = module.task.split.selector if module.task is not None else {}
        found = [
            self.concept
            or self._of_class(row, module)
            or (self.field and row.about.get(self.field))
            or selector.get("concept")
            for row in rows
        ]
        if not all(found):
            raise InputError(
                "neither the prompts nor the task say which concept was erased; give concept, or "
                f"the column that names it as field. The judge {self.judge.name} knows "
                f"{_labels(self.judge)}."
            )
        for name in dict.fromkeys(found):
            self.judge.label_indices(str(name))
        return [str(name) for name in found]

    def _of_class(self, row: ImageRow, module: UnlearningModule) -> str | None:
        """The judge's label of the row's class."""
        if row.label is None:
            return None
        classes = getattr(module.served(), "num_classes", len(self.judge.labels))
        if classes != len(self.judge.labels):
            raise InputError(
                f"the model has {classes} classes and the judge {self.judge.name} "
                f"{len(self.judge.labels)} labels, so they are not the same; take a judge of "
                "these classes."
            )
        return self.judge.labels[row.label]

    def _asked(
        self, rows: Sequence[ImageRow], erased: set[str], module: UnlearningModule
    ) -> list[str | None]:
        """What each kept row asks for, by the judge's labels."""
        found = [
            self._of_class(row, module)
            or (self.field and row.about.get(self.field))
            or _named(self.judge, row)
            for row in rows
        ]
        named = [str(name) for name in found if name]
        if not named:
            raise InputError(
                f"no prompt of the kept images names one label of the judge {self.judge.name} "
                f"({_labels(self.judge)}); give the column that does as field, another judge, or "
                "metrics: [UA]."
            )
        gone = {place for name in erased for place in self.judge.label_indices(name)}
        mixed = sum(1 for name in named if set(self.judge.label_indices(name)) & gone)
        if mixed:
            raise InputError(
                f"{mixed} of {len(rows)} kept images ask for the erased concept "
                f"({', '.join(sorted(erased))}); leave them out with `without`, or choose another "
                "part."
            )
        return [name or None for name in found]

    # ---- the numbers -----------------------------------------------------------------------------

    def _erasure(
        self,
        rows: Sequence[ImageRow],
        concepts: Sequence[str],
        probabilities: Tensor,
        detail: dict[str, Any],
    ) -> list[Result]:
        gone = ~torch.tensor(hits(self.judge, probabilities, concepts))
        shares = by_name(gone, concepts)
        detail = {**detail, **self.judge.detail(), "concept": ", ".join(shares)}
        split = self.erased.name

        def result(
            name: str, value: float, unit: str = "%", better: bool | None = True, **more: Any
        ) -> Result:
            return Result(name, value, better, split, unit, {**detail, **more})

        found = [result("UA", _average(shares))]
        if len(shares) > 1:
            found += [
                result(f"UA/{name}", share, images=count, concept=name)
                for name, (share, count) in shares.items()
            ]
        places = [self.judge.label_indices(name) for name in concepts]
        mass = torch.stack(
            [
                _mass(row[place], self.judge)
                for row, place in zip(probabilities.double(), places, strict=True)
            ]
        )
        found.append(result("UA/probability", 100 * float(mass.mean()), better=False))
        if self.judge.multilabel:
            level = self.judge.threshold or 0.5
            found += [
                result(f"UA/images/{label}", float(count), "", False)
                for label, count in zip(
                    self.judge.labels, (probabilities >= level).sum(0), strict=True
                )
            ]
        else:
            found.append(
                result(
                    "UA/entropy",
                    float(torch.special.entr(probabilities.double()).sum(1).mean()),
                    "nats",
                    None,
                )
            )
        categories = list(dict.fromkeys(name for row in rows for name in _categories(row)))
        for name in categories:
            inside = torch.tensor([name in _categories(row) for row in rows])
            found.append(
                result(
                    f"UA/{name}",
                    100 * float(gone[inside].float().mean()),
                    images=int(inside.sum()),
                    category=name,
                )
            )
        return found

    def _in_domain(
        self, asked: Sequence[str | None], probabilities: Tensor, detail: dict[str, Any]
    ) -> list[Result]:
        return _accuracy("IRA", self.judge, asked, probabilities, detail, self.kept.name)

    def _cross_domain(
        self, jobs: Mapping[str, ImageJob], seen: Judged, detail: Mapping[str, Mapping[str, Any]]
    ) -> list[Result]:
        """Over both sets together, over each, and for each label."""
        sets = {"": list(jobs), **{name: [name] for name in jobs}}
        common = {
            name: value
            for name, value in detail["erased"].items()
            if name in ("sampler", "resolution")
        }
        limits = [
            f"{images.limit} {name}"
            for name, images in (("erased", self.erased), ("kept", self.kept))
            if images.limit is not None
        ]
        common |= {"limit": ", ".join(limits)} if limits else {}
        averages: dict[str, list[float]] = {name: [] for name in sets}
        each: list[Result] = []
        left_out = dict.fromkeys(sets, 0)
        for place, judge in enumerate(self.cross, 1):
            asked = {name: [_named(judge, row) for row in job.rows] for name, job in jobs.items()}
            if not any(one for names in asked.values() for one in names):
                raise InputError(
                    f"no prompt names one label of the judge {judge.name} ({_labels(judge)}); CRA "
                    "needs prompts that do."
                )
            for name, members in sets.items():
                wanted = [one for member in members for one in asked[member]]
                left_out[name] += sum(1 for one in wanted if not one)
                if any(wanted):
                    said = torch.cat([seen.of(member, place) for member in members])
                    shares = by_name(torch.tensor(hits(judge, said, wanted)), wanted)
                    averages[name].append(_average(shares))
                    told = {**common, **judge.detail()}
                    each += [
                        Result(f"CRA/{label}", share, True, "", "%", {**told, "images": count})
                        for label, (share, count) in shares.items()
                        if not name
                    ]
        said = [judge.detail() for judge in self.cross]
        judges = {
            key: one if len(said) == 1 else ", ".join(str(other.get(key, "")) for other in said)
            for key, one in said[0].items()
        }
        found = []
        for name, values in averages.items():
            images = sum(len(jobs[member].rows) for member in sets[name])
            prompts = sum(len(jobs[member].subjects) for member in sets[name])
            told = {
                **common,
                **judges,
                "images": images,
                "prompts": prompts,
                **({"left_out": left_out[name]} if left_out[name] else {}),
            }
            found += (
                [
                    Result(
                        f"CRA/{name}" if name else "CRA",
                        sum(values) / len(values),
                        True,
                        name,
                        "%",
                        told,
                    )
                ]
                if values
                else []
            )
        return found + each


class Judged:
    """What judges said of every image of some jobs, on all ranks.

    Attributes:
        facts: `resolution` of the images in pixels (one number for squares).
    """

    def __init__(self, tables: Mapping[str, Mapping[str, Tensor]], facts: dict[str, Any]) -> None:
        self._tables = tables
        self.facts = facts

    def of(self, name: str, judge: int) -> Tensor:
        """Probabilities `[N, K]` of a job's images, in the order of its rows, on the CPU."""
        return self._tables[name][f"probability{judge}"].cpu()


def judged(
    module: UnlearningModule, jobs: Mapping[str, ImageJob], judges: Sequence[Judge]
) -> Judged:
    """Draw each job's images once and let every judge see each batch as it comes."""
    store = Outputs().to(module.device)
    facts = {}
    for name, job in jobs.items():
        for images, places in image_cache(module).images(job):
            facts["resolution"] = resolution(images)
            said = {
                f"probability{number}": judge.judge(images).float()
                for number, judge in enumerate(judges)
            }
            store.update(name, {"index": torch.tensor(places, device=images.device), **said})
    return Judged(store.compute(), facts)


def resolution(images: Tensor) -> int | str:
    """Of images `[B, C, H, W]`: one number for squares."""
    height, width = images.shape[-2:]
    return int(height) if height == width else f"{width}x{height}"


def hits(judge: Judge, probabilities: Tensor, names: Sequence[str | None]) -> list[bool]:
    """Whether the judge recognises in each image what its row names; False where it names
    nothing.
    """
    found = torch.zeros(len(names), dtype=torch.bool)
    for name in dict.fromkeys(names):
        if name:
            inside = torch.tensor([other == name for other in names])
            found[inside] = judge.verdict(probabilities[inside], name)
    return found.tolist()


def by_name(values: Tensor, names: Sequence[str | None]) -> dict[str, tuple[float, int]]:
    """Percentage of True, and number of images, for each name; rows without a name are left out."""
    found = {}
    for name in dict.fromkeys(name for name in names if name):
        inside = torch.tensor([other == name for other in names])
        found[str(name)] = (100 * float(values[inside].double().mean()), int(inside.sum()))
    return found


def _accuracy(
    metric: str,
    judge: Judge,
    asked: Sequence[str | None],
    probabilities: Tensor,
    detail: Mapping[str, Any],
    split: str,
) -> list[Result]:
    shares = by_name(torch.tensor(hits(judge, probabilities, asked)), asked)
    without = sum(1 for name in asked if not name)
    told = {
        **detail,
        **judge.detail(),
        "images": len(asked) - without,
        **({"left_out": without} if without else {}),
    }
    found = [Result(metric, _average(shares), True, split, "%", told)]
    if len(shares) > 1:
        found += [
            Result(f"{metric}/{name}", share, True, split, "%", {**told, "images": count})
            for name, (share, count) in shares.items()
        ]
    return found


def _labels(judge: Judge, most: int = 12) -> str:
    return ", ".join(judge.labels[:most]) + (" and more" if len(judge.labels) > most else "")


def _average(shares: Mapping[str, tuple[float, int]]) -> float:
    return sum(share for share, _ in shares.values()) / len(shares)


def _mass(probabilities: Tensor, judge: Judge) -> Tensor:
    """Probability of a concept that is one or several labels."""
    return probabilities.max() if judge.multilabel else probabilities.sum()


def _named(judge: Judge, row: ImageRow) -> str | None:
    """The one label that the row's prompt names."""
    found = judge.labels_in(row.prompt or "")
    return found[0] if len(found) == 1 else None


def _categories(row: ImageRow) -> list[str]:
    return [word.strip() for word in row.about.get("categories", "").split(",") if word.strip()]
