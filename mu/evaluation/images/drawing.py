"""Image generation for tests: fixed batches, shared by ranks, resumable.

An image depends on its row (prompt or class, seed, guidance), the sampler and the model. The rows
and the batch size alone determine the batches, and a batch is drawn by one rank; so images are bit
for bit the same on any number of ranks and after an interruption. Images are rounded to 256 levels
as they are drawn, so images in memory equal those read from files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from mu.backbones import Condition
from mu.backbones.diffusion.sampler import Sampler
from mu.core.module import UnlearningModule
from mu.evaluation.images.png import read_png, write_png
from mu.utils.errors import InputError, UndefinedError
from mu.utils.files import read_json, write_json
from mu.utils.fingerprint import digest, model_identity
from mu.utils.progress import progress_bar
from mu.utils.spec import init_args_of, to_spec

T = TypeVar("T")
INDEX = "images.json"
"""Name of the file that describes the images of a folder."""
_FORMAT = 1
_DIFFERENCES = {"rows": "other prompts or seeds", "format": "another version of mu"}


@dataclass(frozen=True)
class ImageRow:
    """One image to draw: prompt or class, seed, guidance.

    Attributes:
        seed: seed of the starting noise.
        prompt: prompt for a text-to-image model.
        label: class for a class-conditional model.
        guidance_scale: scale of classifier-free guidance; None uses the sampler's.
        case: name of the row in file names.
        about: other columns of a prompt file; no effect on the image.
        sample: position of a sample of the task with this prompt or class; no effect on the image.
    """

    seed: int
    prompt: str | None = None
    label: int | None = None
    guidance_scale: float | None = None
    case: str = ""
    about: Mapping[str, str] = field(default_factory=dict, compare=False)
    sample: int | None = field(default=None, compare=False)

    def caption(self) -> str:
        """Prompt or class, for display."""
        return self.prompt if self.prompt is not None else f"class {self.label}"

    @property
    def file(self) -> str:
        """File name of the image."""
        return f"{re.sub(r'[^0-9A-Za-z_-]+', '-', self.case) or 'image'}_{self.seed}.png"

    def identity(self) -> dict[str, Any]:
        """Fields that determine the image, as plain data."""
        return {
            attribute.name: getattr(self, attribute.name)
            for attribute in fields(self)
            if attribute.compare
        }


class ImageJob:
    """List of images to draw from one model, in fixed batches.

    Args:
        rows: the images to draw.
        sampler: the sampler; None uses the model's.
        batch_size: images of a batch, at least 1. It is part of the images' identity: another size
            may change their last bits.
        folder: folder for PNG files, `CASE_SEED.png`, with `images.json`; None writes no files. An
            interrupted job resumes after the last complete batch.

    Raises:
        InputError: when there are no rows, or two rows have the same file name.
    """

    def __init__(
        self,
        rows: Sequence[ImageRow],
        sampler: Sampler | None = None,
        batch_size: int = 16,
        folder: Path | str | None = None,
    ) -> None:
        if not rows:
            raise InputError("there is no image to draw; give at least one prompt or class.")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
        self.rows = tuple(rows)
        self.sampler = sampler
        self.batch_size = batch_size
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            names = [row.file for row in self.rows]
            twice = (
                next((name for name in names if names.count(name) > 1), None)
                if len(set(names)) < len(names)
                else None
            )
            if twice is not None:
                raise InputError(
                    f"two rows would have the file {twice}; give each its own case number or seed."
                )
        self.batches = self._batches()

    def _batches(self) -> list[list[int]]:
        """Indices into `rows`, in batches of equal guidance."""
        groups: dict[float | None, list[int]] = {}
        for index, row in enumerate(self.rows):
            groups.setdefault(row.guidance_scale, []).append(index)
        return [
            indices[start : start + self.batch_size]
            for indices in groups.values()
            for start in range(0, len(indices), self.batch_size)
        ]

    @property
    def subjects(self) -> list[list[int]]:
        """Indices into `rows`, one list for each prompt or class, in the order of the rows."""
        subjects: dict[tuple[Any, ...], list[int]] = {}
        for index, row in enumerate(self.rows):
            subjects.setdefault((row.case, row.prompt, row.label), []).append(index)
        return list(subjects.values())

    def key(self) -> str:
        """Hash of rows, sampler and batch size."""
        return digest(
            [
                [row.identity() for row in self.rows],
                to_spec(self.sampler),
                self.batch_size,
                str(self.folder),
            ]
        )

    def run(
        self,
        backbone: Any,
        rank: int = 0,
        world: int = 1,
        within: Callable[[], AbstractContextManager[Any]] = nullcontext,
        identity: str | None = None,
    ) -> Iterator[tuple[Tensor, list[int]]]:
        """Batches of this rank, drawn one by one, or read from the folder.

        Args:
            backbone: model with `generate(condition, seeds, sampler)`, and `texts(prompts)` or
                `labels(labels)`; draws in eval mode.
            rank: index of this process.
            world: number of processes.
            within: factory of the context of a forward pass (the trainer's precision).
            identity: hash of the model, computed when None (see `model_identity`).

        Yields:
            Images `[B, C, H, W]` float32 in {0, 1/255, ..., 1}, and their indices into `rows`.

        Raises:
            InputError: when the folder holds images of another model, sampler or list of prompts,
                or other files.
        """
        stamp = self._open(backbone, identity) if self.folder is not None else ""
        for indices in progress_bar(
            self.batches[rank::world],
            "drawing images",
            disable=rank != 0,
            unit_scale=self.batch_size,
        ):
            stored = None if self.folder is None else self._read(indices, stamp)
            if stored is not None:
                yield stored.to(_device(backbone)).float() / 255, indices
                continue
            with within():
                drawn = self._draw(backbone, indices)
            if self.folder is not None:
                self._write(drawn.cpu(), indices, stamp)
            yield drawn.float() / 255, indices

    @torch.no_grad()
    def _draw(self, backbone: Any, indices: Sequence[int]) -> Tensor:
        """Draw a batch: levels `[B, C, H, W]` uint8."""
        from mu.utils.modules import eval_mode

        rows = [self.rows[index] for index in indices]
        with eval_mode(backbone):
            images = backbone.generate(
                conditions(backbone, rows),
                [row.seed for row in rows],
                self._sampler(backbone, rows[0].guidance_scale),
            )
        broken = int((~images.isfinite()).flatten(1).any(1).sum())
        if broken:
            # as levels they would be black, which a judge takes for an image
            raise UndefinedError(
                f"{broken} of {len(images)} images of a batch are not finite: the model that was "
                "tested has diverged, so nothing can be seen in its images."
            )
        return levels(images)

    def _sampler(self, backbone: Any, guidance_scale: float | None) -> Sampler | None:
        sampler = self.sampler or getattr(backbone, "sampler", None)
        if guidance_scale is None:
            return sampler
        if sampler is None:
            raise InputError("rows with their own guidance need a sampler; give one.")
        return type(sampler)(**{**init_args_of(sampler), "guidance_scale": guidance_scale})

    # ---- files of the folder ---------------------------------------------------------------------

    def _open(self, backbone: Any, identity: str | None) -> str:
        """Check or write the index of the folder; returns the stamp of its files."""
        assert self.folder is not None
        # identity of the job
        contents = {
            "format": _FORMAT,
            "model": identity or model_identity(backbone),
            "sampler": to_spec(self._sampler(backbone, None)),
            "batch_size": self.batch_size,
            "rows": [row.identity() for row in self.rows],
        }
        contents = json.loads(json.dumps(contents))
        names = (
            sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
            if self.folder.is_dir()
            else []
        )
        # compare with the job that wrote the folder
        if INDEX in names:
            stored = read_json(self.folder / INDEX)
            difference = next(
                (
                    name
                    for name in contents
                    if not isinstance(stored, dict) or stored.get(name) != contents[name]
                ),
                None,
            )
            if difference is not None:
                description = _DIFFERENCES.get(
                    difference, f"another {difference.replace('_', ' ')}"
                )
                raise InputError(
                    f"{self.folder} holds images of {description}, which this job does not use; "
                    "choose another folder, or remove this one."
                )
        elif names:
            raise InputError(
                f"{self.folder} holds {names[0]} and no {INDEX}, so its files are not images of a "
                "job; choose another folder."
            )
        else:
            write_json(self.folder / INDEX, contents)
        return digest(contents)

    def _read(self, indices: Sequence[int], stamp: str) -> Tensor | None:
        """Images of a batch, or None when a file is missing or damaged."""
        images = []
        for index in indices:
            image = read_png(Path(str(self.folder)) / self.rows[index].file, stamp)
            if image is None or (images and image.shape != images[0].shape):
                return None
            images.append(image)
        return torch.stack(images)

    def _write(self, drawn: Tensor, indices: Sequence[int], stamp: str) -> None:
        for image, index in zip(drawn, indices, strict=True):
            write_png(Path(str(self.folder)) / self.rows[index].file, image, stamp)


def conditions(backbone: Any, rows: Sequence[ImageRow]) -> Condition:
    """Conditions of rows: text embeddings or class labels.

    Raises:
        InputError: when the model accepts neither the prompts nor the labels of the rows.
    """
    if all(row.prompt is not None for row in rows) and hasattr(backbone, "texts"):
        return backbone.texts([row.prompt for row in rows])
    if all(row.label is not None for row in rows) and hasattr(backbone, "labels"):
        return backbone.labels([row.label for row in rows])
    condition = "prompts" if rows[0].prompt is not None else "class labels"
    raise InputError(
        f"{type(backbone).__name__} does not draw images from {condition}; choose a task that "
        "fits the model."
    )


def levels(images: Tensor) -> Tensor:
    """Images in [0, 1] rounded to 256 levels, uint8.

    >>> levels(torch.tensor([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)


class ImageCache:
    """Images of one test, drawn once for all suites.

    Images are cached in memory as uint8 (3 H W bytes each) on the rank that drew them, unless their
    job has a folder.

    Args:
        module: the tested module; its served model draws.
    """

    def __init__(self, module: UnlearningModule) -> None:
        self._module = module
        self._stored: dict[str, list[tuple[Tensor, list[int]]]] = {}
        self._identity: str | None = None

    def images(self, job: ImageJob) -> Iterator[tuple[Tensor, list[int]]]:
        """Batches of a job on this rank, as `ImageJob.run` yields them, drawn once."""
        module = self._module
        key = job.key()
        if key in self._stored:
            device = _device(module.served())
            yield from (
                (drawn.to(device).float() / 255, indices) for drawn, indices in self._stored[key]
            )
            return
        batches: list[tuple[Tensor, list[int]]] = []
        if job.folder is not None and self._identity is None:
            self._identity = model_identity(module.served())
        for images, indices in job.run(
            module.served(), module.global_rank, module.world_size, module.precision, self._identity
        ):
            if job.folder is None:
                batches.append((levels(images).cpu(), indices))
            yield images, indices
        if job.folder is None:
            self._stored[key] = batches


def image_cache(module: UnlearningModule) -> ImageCache:
    """Image cache of the current test of a module, shared by all suites."""
    if ImageCache not in module.cache:
        module.cache[ImageCache] = ImageCache(module)
    return module.cache[ImageCache]


def _device(backbone: Any) -> torch.device:
    first = next(iter(backbone.parameters()), None)
    return torch.device("cpu") if first is None else first.device
