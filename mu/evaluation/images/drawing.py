"""Drawing many images from a diffusion model: in fixed batches, over ranks, resumable, each batch
handed on as soon as it is there.

An image depends on its row (prompt or class, seed, guidance), the sampler and the model. What is
drawn in one batch is decided by the rows and the batch size alone, and batches are dealt to ranks
whole; so an image is the same bit for bit on any number of ranks and after an interruption. Images
have the 256 levels of a stored file from the start, so that those in memory and those read from a
folder are the same too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from mu.backbones.diffusion.base import Sampler
from mu.utils.errors import InputError
from mu.utils.files import read_json, replacing, write_json
from mu.utils.fingerprint import digest, model_identity
from mu.utils.progress import progress_bar
from mu.utils.spec import init_args_of, to_spec

if TYPE_CHECKING:
    from mu.backbones import Condition
    from mu.core.module import UnlearningModule

T = TypeVar("T")
INDEX = "images.json"
"""File that says of a folder which images it holds."""
_FORMAT = 1
_CHUNK = "mu"  # name of the text chunk by which a PNG file names its job
_OTHERS = {"rows": "other prompts or seeds", "format": "another version of mu"}


@dataclass(frozen=True)
class ImageRow:
    """One image to draw.

    Attributes:
        seed: of its starting noise.
        prompt: for a text-to-image model.
        label: for a class-conditional model.
        guidance: its own scale of classifier-free guidance; None takes the sampler's.
        case: what the row is called, in the file's name.
        about: what else is known of it (a prompt file's other columns); has no effect on the image.
        sample: position of a sample of the task that has this prompt or class; has no effect
            either.
    """

    seed: int
    prompt: str | None = None
    label: int | None = None
    guidance: float | None = None
    case: str = ""
    about: Mapping[str, str] = field(default_factory=dict, compare=False)
    sample: int | None = field(default=None, compare=False)

    def caption(self) -> str:
        """The prompt, or the class, for display."""
        return self.prompt if self.prompt is not None else f"class {self.label}"

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{re.sub(r'[^0-9A-Za-z_-]+', '-', self.case) or 'image'}_{self.seed}.png"

    def identity(self) -> dict[str, Any]:
        """What decides the image, as plain data."""
        return {
            attribute.name: getattr(self, attribute.name)
            for attribute in fields(self)
            if attribute.compare
        }


class ImageJob:
    """Images of one model.

    Args:
        rows: what to draw.
        sampler: how; None takes the model's own.
        batch_size: images drawn at once. It belongs to the images' identity: another one may change
            their last bits.
        folder: where PNG files are kept, `CASE_SEED.png` with `images.json` beside them; None
            writes nothing. A job that was interrupted goes on where it stopped, by whole batches.

    Raises:
        InputError: when there is nothing to draw, or two rows would have the same file.
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
        """Places in `rows`, in batches of one guidance each."""
        groups: dict[float | None, list[int]] = {}
        for index, row in enumerate(self.rows):
            groups.setdefault(row.guidance, []).append(index)
        return [
            indices[start : start + self.batch_size]
            for indices in groups.values()
            for start in range(0, len(indices), self.batch_size)
        ]

    @property
    def subjects(self) -> list[list[int]]:
        """Places in `rows`, by what is drawn: one list for each prompt or class, in the order of
        the rows.
        """
        subjects: dict[tuple[Any, ...], list[int]] = {}
        for index, row in enumerate(self.rows):
            subjects.setdefault((row.case, row.prompt, row.label), []).append(index)
        return list(subjects.values())

    def key(self) -> str:
        """Identifies rows, sampler and batches."""
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
        """This rank's batches, each as soon as it is drawn, or read from the folder.

        Args:
            backbone: has `generate(condition, seeds, sampler)`, and `texts(prompts)` or
                `labels(labels)`. It draws in eval mode.
            rank: this process.
            world: number of processes.
            within: makes the context of a forward pass (the trainer's precision).
            identity: of the model, where it is known already (see `model_identity`).

        Yields:
            Images `[B, C, H, W]` float32 in {0, 1/255, ..., 1}, and their places in `rows`.

        Raises:
            InputError: when the folder holds images of another model, sampler or list of prompts,
                or files of somebody else.
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
        """Levels `[B, C, H, W]` uint8."""
        from mu.utils.modules import eval_mode

        rows = [self.rows[index] for index in indices]
        with eval_mode(backbone):
            images = backbone.generate(
                conditions(backbone, rows),
                [row.seed for row in rows],
                self._sampler(backbone, rows[0].guidance),
            )
        return levels(images)

    def _sampler(self, backbone: Any, guidance: float | None) -> Sampler | None:
        sampler = self.sampler or getattr(backbone, "sampler", None)
        if guidance is None:
            return sampler
        if sampler is None:
            raise InputError("rows with their own guidance need a sampler; give one.")
        return type(sampler)(**{**init_args_of(sampler), "guidance": guidance})

    # ---- the folder ------------------------------------------------------------------------------

    def _open(self, backbone: Any, identity: str | None) -> str:
        """Check or write the folder's index; the stamp of its files."""
        assert self.folder is not None
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
                what = _OTHERS.get(difference, f"another {difference.replace('_', ' ')}")
                raise InputError(
                    f"{self.folder} holds images of {what}, which are not used for this job; "
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
        """A batch's images, if all of its files are there and whole."""
        images = []
        for index in indices:
            image = _read_png(Path(str(self.folder)) / self.rows[index].file, stamp)
            if image is None or (images and image.shape != images[0].shape):
                return None
            images.append(image)
        return torch.stack(images)

    def _write(self, drawn: Tensor, indices: Sequence[int], stamp: str) -> None:
        for image, index in zip(drawn, indices, strict=True):
            write_png(Path(str(self.folder)) / self.rows[index].file, image, stamp)


def conditions(backbone: Any, rows: Sequence[ImageRow]) -> Condition:
    """The rows' conditions.

    Raises:
        InputError: when the model does not draw from what the rows say.
    """
    if all(row.prompt is not None for row in rows) and hasattr(backbone, "texts"):
        return backbone.texts([row.prompt for row in rows])
    if all(row.label is not None for row in rows) and hasattr(backbone, "labels"):
        return backbone.labels([row.label for row in rows])
    what = "prompts" if rows[0].prompt is not None else "class labels"
    raise InputError(
        f"{type(backbone).__name__} does not draw images from {what}; give it the kind of task "
        "that it was made for."
    )


def levels(images: Tensor) -> Tensor:
    """The 256 levels of a stored file, uint8, of images in [0, 1]."""
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)


def write_png(path: Path, image: Tensor, stamp: str = "") -> None:
    """Write `[C, H, W]` uint8 (one or three channels) as a PNG file, whole or not at all.

    Args:
        path: of the file.
        image: the levels.
        stamp: kept in a text chunk, by which `ImageJob` knows its own files.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise InputError(
            f"an image file has one or three channels, not the shape {list(image.shape)}."
        )
    array = image.permute(1, 2, 0).contiguous().numpy() if len(image) == 3 else image[0].numpy()
    chunk = PngInfo()
    if stamp:
        chunk.add_text(_CHUNK, stamp)
    with replacing(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG", pnginfo=chunk)


def _read_png(path: Path, stamp: str) -> Tensor | None:
    """Levels `[C, H, W]`; None where there is no file, or only a part of one."""
    import numpy as np
    from PIL import Image

    if not path.is_file():
        return None
    try:
        with Image.open(path) as opened:
            opened.load()
            stored_stamp = getattr(opened, "text", {}).get(_CHUNK)
            array = np.asarray(opened)
    except (
        OSError,
        SyntaxError,
        ValueError,
    ):
        # what PIL answers to a file that is cut off or damaged
        return None
    if stored_stamp != stamp:
        raise InputError(
            f"{path} was not drawn by this job; choose another folder, or remove the file."
        )
    return torch.from_numpy(array.copy()).view(*array.shape[:2], -1).permute(2, 0, 1)


class ImageCache:
    """The images of one test, drawn once for all suites.

    Images stand in memory as uint8 (3 H W bytes each) on the rank that drew them, unless their job
    has a folder.

    Args:
        module: the tested module; its served model draws.
    """

    def __init__(self, module: UnlearningModule) -> None:
        self._module = module
        self._stored: dict[str, list[tuple[Tensor, list[int]]]] = {}
        self._identity: str | None = None

    def images(self, job: ImageJob) -> Iterator[tuple[Tensor, list[int]]]:
        """This rank's batches of a job, as `ImageJob.run` yields them; drawn the first time, the
        same ever after.
        """
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
    """The images of the module's present test, shared by all suites."""
    if ImageCache not in module.cache:
        module.cache[ImageCache] = ImageCache(module)
    return module.cache[ImageCache]


def _device(backbone: Any) -> torch.device:
    first = next(iter(backbone.parameters()), None)
    return torch.device("cpu") if first is None else first.device
