"""Image sets of suites: prompts or classes of a part of the task, or of a prompt file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unicodedata import normalize

from mu.backbones.diffusion.sampler import Sampler
from mu.core.module import UnlearningModule
from mu.data.batch import fetch
from mu.data.prompt_files import SEED_LIMIT, read_prompts
from mu.evaluation.images.drawing import ImageJob, ImageRow
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible

_CHUNK = 256  # samples of one read


@dataclass(frozen=True)
class _Subject:
    """A prompt or a class to draw, with its columns in the prompt file."""

    prompt: str | None = None
    label: int | None = None
    seed: int | None = None
    guidance_scale: float | None = None
    case: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    sample: int | None = None


class ImageSet(Reconstructible):
    """Images that a suite draws; suites with equal sets share them.

    Args:
        part: part of the split whose distinct prompts (classes, for a class-conditional model) are
            drawn, with the seeds and guidances of the samples that have them.
        file: a prompt file in place of the part (see `mu.data.prompt_files`), with its
            seeds and guidances.
        texts: a second file with the texts of the prompts, for tables published without them.
        where: values that a column (or text field) may have: `{class: [church]}`.
        without: values that a column must not have.
        limit: largest number of prompts, at least 1; None draws all.
        num_images_per_prompt: images of each prompt or class, with consecutive seeds, at least 1.
        seed: seed of the first image, for prompts without one; not negative.
        sampler: the sampler; None uses the model's.
        batch_size: images of a batch.
        folder: folder for PNG files, from which an interrupted test resumes; None keeps images in
            memory.

    Raises:
        InputError: when a number is out of range.

    Example: `ImageSet("forget", num_images_per_prompt=10, limit=5)` draws 50 images.
    """

    def __init__(
        self,
        part: str = "forget",
        file: str | None = None,
        texts: str | None = None,
        where: dict[str, list[str]] | None = None,
        without: dict[str, list[str]] | None = None,
        limit: int | None = None,
        num_images_per_prompt: int = 1,
        seed: int = 0,
        sampler: Sampler | None = None,
        batch_size: int = 16,
        folder: str | None = None,
    ) -> None:
        if num_images_per_prompt < 1 or (limit is not None and limit < 1):
            raise InputError(
                "num_images_per_prompt and limit must be at least 1; leave limit out to take all "
                "prompts."
            )
        if seed < 0:
            raise InputError(f"seed is {seed}; it must not be negative.")
        self.part = part
        self.file = file
        self.texts = texts
        self.where = dict(where or {})
        self.without = dict(without or {})
        self.limit = limit
        self.num_images_per_prompt = num_images_per_prompt
        self.seed = seed
        self.sampler = sampler
        self.batch_size = batch_size
        self.folder = folder

    @property
    def name(self) -> str:
        """Split name in results: the part, or the file name."""
        from pathlib import Path

        return self.part if self.file is None else Path(self.file).stem

    def check(self, module: UnlearningModule) -> None:
        """Check that the file can be read and selected from, or the task has such a part.

        Nothing but the part's first sample is read, and no model is needed but the backbone.

        Raises:
            InputError: as `rows`.
        """
        if self.file is not None:
            self.rows(module)
        else:
            data = part_of(module, self.part)
            _subjects(module.backbone, fetch(data, _positions(0, 1)), 0, self.part)

    def rows(self, module: UnlearningModule) -> list[ImageRow]:
        """Images to draw for a module under test, prompt by prompt.

        Raises:
            InputError: when no prompt or class is selected.
        """
        # select the prompts or classes
        subjects = (
            self._file_subjects() if self.file is not None else _part_subjects(module, self.part)
        )
        subjects = [row for row in subjects if self._selected(row.about)][: self.limit]
        if not subjects:
            raise InputError(
                f"no prompt of {self.file or 'the part ' + repr(self.part)} has what `where` and "
                "`without` ask for."
            )
        # number their images by seed
        per_subject = self.num_images_per_prompt
        first = [
            self.seed + index * per_subject if row.seed is None else row.seed
            for index, row in enumerate(subjects)
        ]
        return [
            ImageRow(
                (first[index] + image) % SEED_LIMIT,
                row.prompt,
                row.label,
                row.guidance_scale,
                row.case or str(index),
                row.about,
                row.sample,
            )
            for index, row in enumerate(subjects)
            for image in range(per_subject)
        ]

    def job(self, module: UnlearningModule) -> ImageJob:
        """Image job of the set for a module under test."""
        return ImageJob(self.rows(module), self.sampler, self.batch_size, self.folder)

    def detail(self, module: UnlearningModule, job: ImageJob) -> dict[str, Any]:
        """Number of images and sampler settings, reported beside results on these images."""
        sampler = job.sampler or getattr(module.served(), "sampler", None)
        guidances = {row.guidance_scale for row in job.rows} - {None}
        sampling = sampler.describe() if sampler is not None else ""
        return {
            "images": len(job.rows),
            "prompts" if job.rows[0].prompt is not None else "classes": len(job.subjects),
            "sampler": sampling + (", guidance of each prompt" if guidances else ""),
            **({"limit": self.limit} if self.limit is not None else {}),
            **({"file": self.name} if self.file is not None else {}),
        }

    def _file_subjects(self) -> list[_Subject]:
        prompts = read_prompts(str(self.file), self.texts, [*self.where, *self.without])
        return [_Subject(p.text, None, p.seed, p.guidance_scale, p.case, p.fields) for p in prompts]

    def _selected(self, about: Mapping[str, str]) -> bool:
        for name in (*self.where, *self.without):
            if name not in about:
                raise InputError(
                    f"the prompts of the part {self.part!r} have no field {name!r}; they have "
                    f"{', '.join(about) or 'none'}."
                )
        return all(_among(about[name], values) for name, values in self.where.items()) and not any(
            _among(about[name], values) for name, values in self.without.items()
        )


def part_of(module: UnlearningModule, part: str) -> Any:
    """Data of a part of the task.

    Raises:
        InputError: when there is no task, or it has no such part.
    """
    task = module.task
    if task is None:
        raise InputError(
            f"the part {part!r} needs a task; test with one (datamodule=...), or give a file "
            "of prompts."
        )
    if part not in task.datasets:
        raise InputError(
            f"{type(task).__name__} has no part {part!r}; it has {', '.join(task.datasets)}."
        )
    return task.datasets[part]


def _part_subjects(module: UnlearningModule, part: str) -> list[_Subject]:
    """Distinct prompts in the order of the samples, or classes in ascending order."""
    data = part_of(module, part)
    served = module.served()
    subjects: dict[Any, _Subject] = {}
    for start in range(0, len(data), _CHUNK):
        samples = fetch(data, _positions(start, len(data)))
        for subject in _subjects(served, samples, start, part):
            key = (
                (subject.prompt, subject.seed, subject.guidance_scale)
                if subject.label is None
                else subject.label
            )
            subjects.setdefault(key, subject)
    return [
        subjects[key]
        for key in (sorted(subjects) if all(isinstance(key, int) for key in subjects) else subjects)
    ]


def _subjects(model: Any, samples: Mapping[str, Any], start: int, part: str) -> list[_Subject]:
    """Subjects of samples, the first of them at position `start` of the part.

    Raises:
        InputError: when they have nothing that the model draws from.
    """
    if isinstance(samples.get("prompt"), list) and hasattr(model, "texts"):
        return list(_prompt_subjects(samples, start))
    if "label" in samples and hasattr(model, "labels"):
        labels = samples["label"].tolist()
        return [_Subject(label=int(y), sample=start + row) for row, y in enumerate(labels)]
    raise InputError(
        f"the part {part!r} of the task gives neither prompts nor classes that "
        f"{type(model).__name__} draws from; give a file of prompts, or another task."
    )


def _prompt_subjects(samples: Mapping[str, Any], start: int) -> Iterator[_Subject]:
    """Subjects of samples with prompts, the first of them at position `start` of the part."""
    texts = {name: values for name, values in samples.items() if _is_text(values)}
    seeds, guidances = (
        samples[name].tolist() if name in samples else None for name in ("seed", "guidance_scale")
    )
    for row, prompt in enumerate(samples["prompt"]):
        guidance_scale = None if guidances is None else guidances[row]
        yield _Subject(
            prompt,
            seed=None if seeds is None else seeds[row] % SEED_LIMIT,
            # float32 holds seven digits
            guidance_scale=None
            if guidance_scale is None or math.isnan(guidance_scale)
            else round(guidance_scale, 5),
            case=texts["case"][row] if "case" in texts else "",
            about={name: texts[name][row] for name in texts if name != "prompt"},
            sample=start + row,
        )


def _among(value: str, values: Sequence[str]) -> bool:
    """Whether a value is one of some, in any normal form of Unicode."""
    return normalize("NFC", value) in [normalize("NFC", name) for name in values]


def _positions(start: int, size: int) -> Any:
    import numpy as np

    return np.arange(start, min(start + _CHUNK, size))


def _is_text(values: Any) -> bool:
    return (
        isinstance(values, Sequence)
        and not isinstance(values, str)
        and all(isinstance(value, str) for value in values)
    )
