"""Grids: what the model draws, before and after, as pictures in the run folder."""

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
    """Writes `media/erased.png` and `media/kept.png` when a test ends: a row for each prompt or
    class, a column for each of its images.

    Give it the very sets of another suite, and the images are shared; then the first rows of them
    are shown.

    Args:
        erased: images of what was erased; four of each of the forget part's first six prompts when
            None.
        kept: images of what stays; the same of the retain part when None.
        prompts: rows of a grid, at most.
        images: images of each prompt, at most.
        before: draw the same with the original weights when a fit starts, and show both side by
            side. They are kept in the run folder, for a test that comes later.
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
            "erased": erased or ImageSet("forget", limit=prompts, images_per_prompt=images),
            "kept": kept or ImageSet("retain", limit=prompts, images_per_prompt=images),
        }

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw with the original weights."""
        module = module_of(pl_module)
        if self.before:
            with module.stopwatch("evaluation"):
                jobs = {
                    name: self._chosen(images.job(module))[0] for name, images in self.sets.items()
                }
                originals.save_originals(run_folder(trainer) / "media" / BEFORE, module, jobs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and write."""
        module = module_of(pl_module)
        with module.stopwatch("evaluation"):
            for name, images in self.sets.items():
                whole = images.job(module)
                job, places = self._chosen(whole)
                after = originals.gather_images(module, image_cache(module).images(whole), places)
                before = (
                    originals.load_originals(
                        run_folder(trainer) / "media" / BEFORE, module, name, job
                    )
                    if self.before
                    else None
                )
                if trainer.is_global_zero:
                    _write(
                        run_folder(trainer),
                        name,
                        job,
                        after,
                        before,
                        _title(images, whole, job, module),
                    )

    def _chosen(self, job: ImageJob) -> tuple[ImageJob, list[int]]:
        """The rows that are shown, as a job of their own, and their places in the whole one."""
        groups = [places[: self.images] for places in job.subjects[: self.prompts]]
        fewest = min(len(places) for places in groups)
        places = [place for group in groups for place in group[:fewest]]
        return ImageJob([job.rows[place] for place in places], job.sampler, job.batch_size), places


def _title(images: ImageSet, whole: ImageJob, job: ImageJob, module: UnlearningModule) -> str:
    shown = len(job.subjects)
    every = len(whole.subjects)
    words = ("prompt", "prompts") if job.rows[0].prompt is not None else ("class", "classes")
    what = (
        f"{every} {words[every > 1]}"
        if shown == every
        else f"the first {shown} of {every} {words[1]}"
    )
    return f"{what}, {images.detail(module, whole)['sampler']}"


def _write(
    folder: Path, name: str, job: ImageJob, after: Tensor, before: Tensor | None, title: str
) -> None:
    rows = [job.rows[places[0]].caption() for places in job.subjects]
    each = len(job.rows) // len(rows)
    numbers = [f" {number + 1}" if each > 1 else "" for number in range(each)]
    if before is None:
        images = list(after)
        columns = [f"image{number}" for number in numbers]
    else:
        images = [image for pair in zip(before, after, strict=True) for image in pair]
        columns = [f"{when}{number}" for number in numbers for when in ("before", "after")]
    add_grid(folder, name, images, title=title, group=name, rows=rows, columns=columns)
