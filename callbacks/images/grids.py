"""Grids of generated images before and after unlearning, as PNG files in the run folder."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.base import module_of, run_folder
from callbacks.images import original_images as originals
from mu.core.module import UnlearningModule
from mu.evaluation.images.drawing import ImageJob, image_cache
from mu.evaluation.images.sets import ImageSet
from mu.evaluation.media import add_grid
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible

BEFORE = "before.safetensors"


class Grids(Callback, Reconstructible):
    """Grids of generated images after a test: `media/erased.png` and `media/kept.png`.

    A row for each prompt or class, a column for each of its images. Images are shared with a suite
    that has equal sets; the grid then has the first of them.

    Args:
        erased: images of the erased concept; four of each of the forget part's first six prompts
            when None.
        kept: images of retained concepts; the same of the retain part when None.
        prompts: largest number of rows of a grid.
        images: largest number of images of each prompt.
        before: draw the same images with the original weights when a fit starts, and put both side
            by side. They are saved in the run folder, for a later test.
    """

    def __init__(
        self,
        erased: ImageSet | None = None,
        kept: ImageSet | None = None,
        prompts: int = 6,
        images: int = 4,
        before: bool = True,
    ) -> None:
        if prompts < 1 or images < 1:
            raise InputError("a grid has at least one prompt and one image.")
        self.prompts = prompts
        self.images = images
        self.before = before
        self.sets = {
            "erased": erased or ImageSet("forget", limit=prompts, num_images_per_prompt=images),
            "kept": kept or ImageSet("retain", limit=prompts, num_images_per_prompt=images),
        }

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the sets of images before anything is drawn."""
        if stage in ("fit", "test"):
            for images in self.sets.values():
                images.check(module_of(pl_module))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the images of the original model."""
        module = module_of(pl_module)
        if self.before:
            with module.stopwatch("evaluation"):
                jobs = {
                    name: self._first_rows(images.job(module))[0]
                    for name, images in self.sets.items()
                }
                originals.save_originals(run_folder(trainer) / "media" / BEFORE, module, jobs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the images and write the grids."""
        module = module_of(pl_module)
        folder = run_folder(trainer)
        with module.stopwatch("evaluation"):
            for name, images in self.sets.items():
                full = images.job(module)
                job, positions = self._first_rows(full)
                after = originals.gather_images(module, image_cache(module).images(full), positions)
                before = None
                if self.before:
                    before = originals.load_originals(folder / "media" / BEFORE, module, name, job)
                if trainer.is_global_zero:
                    title = _title(images, full, job, module)
                    _write(folder, name, job, after, before, title)

    def _first_rows(self, job: ImageJob) -> tuple[ImageJob, list[int]]:
        """First prompts and images of a job as a job of its own, and their positions in it."""
        groups = [positions[: self.images] for positions in job.subjects[: self.prompts]]
        fewest = min(len(positions) for positions in groups)
        positions = [position for group in groups for position in group[:fewest]]
        rows = [job.rows[position] for position in positions]
        return ImageJob(rows, job.sampler, job.batch_size), positions


def _title(images: ImageSet, full: ImageJob, job: ImageJob, module: UnlearningModule) -> str:
    """Title of a grid: `the first 6 of 40 prompts, DDIM, 50 steps`."""
    count = len(job.subjects)
    total = len(full.subjects)
    singular, plural = (
        ("prompt", "prompts") if job.rows[0].prompt is not None else ("class", "classes")
    )
    sampler = images.detail(module, full)["sampler"]
    if count < total:
        return f"the first {count} of {total} {plural}, {sampler}"
    return f"{total} {plural if total > 1 else singular}, {sampler}"


def _write(
    folder: Path, name: str, job: ImageJob, after: Tensor, before: Tensor | None, title: str
) -> None:
    rows = [job.rows[positions[0]].caption() for positions in job.subjects]
    per_row = len(job.rows) // len(rows)
    suffixes = [f" {index + 1}" if per_row > 1 else "" for index in range(per_row)]
    if before is None:
        images = list(after)
        columns = [f"image{suffix}" for suffix in suffixes]
    else:
        images = [image for pair in zip(before, after, strict=True) for image in pair]
        columns = [f"{when}{suffix}" for suffix in suffixes for when in ("before", "after")]
    add_grid(folder, name, images, title=title, group=name, rows=rows, columns=columns)
