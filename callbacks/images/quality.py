"""Image quality of retained concepts: FID and KID to real images, CLIP score to prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from callbacks.base import Evaluated, Suite
from callbacks.images.judging import resolution
from mu.core.module import UnlearningModule
from mu.data.batch import fetch
from mu.data.image_files import decode_image, is_image
from mu.evaluation.images.clip import OpenCLIP, resize_and_crop
from mu.evaluation.images.drawing import ImageJob, image_cache
from mu.evaluation.images.features import Features
from mu.evaluation.images.sets import ImageSet
from mu.metrics import images as distances
from mu.metrics.outputs import Outputs
from mu.metrics.results import Result, compute_result
from mu.utils.errors import InputError, UndefinedError
from mu.utils.progress import progress_bar

METRICS = ("FID", "KID", "CLIP")


class ImageQuality(Suite):
    """FID, KID and CLIP score of generated images of retained concepts.

    `FID` and `KID` compare with real images (lower is better), `CLIP` compares with the prompts
    (higher is better).

    FID and KID depend on the features, on the number of images on both sides and on the resolution,
    which are all in the detail; results with different ones must not be compared. Real images are
    resized to the resolution of the drawn ones (with antialiasing, centre crop). `FID/floor` and
    `KID/floor` are the same distances between disjoint sets of real images, of the same numbers as
    far as there are enough: what images of the right distribution score.

    Args:
        features: extractor for FID and KID.
        clip: model for the CLIP score.
        kept: images of retained concepts; the task's retain part when None.
        reference: real images: a part of the task, or a folder of image files.
        reference_limit: number of real images, the first ones; None takes all.
        metrics: names among FID, KID and CLIP; FID where there are features, and CLIP where there
            is a model, when None.
        subsets: number of random subsets that KID is averaged over.
        subset_size: images in each subset.
        batch_size: real images read at once.
        seed: seed of the subsets of KID and of the floor's sets.
        floor_pairs: pairs of sets of real images, over which the floor is averaged; 0 leaves the
            floor out.
    """

    definitions: ClassVar[Mapping[str, str]] = {
        "FID": "Fréchet inception distance: between features of the images of what stays and of "
        "real ones, or the original's, as the note under the table states; lower is "
        "better, and comparable only for the same features and number of images.",
        "KID": "Kernel inception distance: squared maximum mean discrepancy between the same "
        "features; lower is better.",
        "FID/floor": "FID between two disjoint sets of real images, mean over random pairs of "
        "sets, in the numbers of the comparison as far as there are enough: about what a perfect "
        "model scores.",
        "KID/floor": "KID between two disjoint sets of real images, likewise.",
        "CLIP": "Mean cosine of CLIP's embeddings of image and prompt; higher is better, and "
        "comparable only for one CLIP model.",
    }

    def __init__(
        self,
        features: Features | None = None,
        clip: OpenCLIP | None = None,
        kept: ImageSet | None = None,
        reference: str = "retain",
        reference_limit: int | None = None,
        metrics: list[str] | None = None,
        subsets: int = 100,
        subset_size: int = 50,
        batch_size: int = 64,
        seed: int = 0,
        floor_pairs: int = 5,
    ) -> None:
        if floor_pairs not in (0, *range(2, 1001)):
            raise InputError(
                f"floor_pairs is {floor_pairs}; give 2 to 1000 pairs of sets, or 0 for no floor."
            )
        self.features = features
        self.clip = clip
        self.kept = kept or ImageSet("retain")
        self.reference = reference
        self.reference_limit = reference_limit
        self.batch_size = batch_size
        usual = [
            *(["FID"] if features is not None else []),
            *(["CLIP"] if clip is not None else []),
        ]
        self.metrics = usual if metrics is None else list(metrics)
        self.subsets = subsets
        self.subset_size = subset_size
        self.seed = seed
        self.floor_pairs = floor_pairs
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            what = unknown[0] if unknown else "nothing"
            raise InputError(
                f"ImageQuality measures {', '.join(METRICS)}, not {what}; give features or clip."
            )
        if features is None and set(self.metrics) & {"FID", "KID"}:
            raise InputError("FID and KID need an extractor; give features.")
        if clip is None and "CLIP" in self.metrics:
            raise InputError("the CLIP score needs a model; give clip.")

    def check(self) -> None:
        """Read the weights."""
        if self.features is not None:
            self.features.load()
        if self.clip is not None:
            _ = self.clip.version

    def check_run(self, module: UnlearningModule) -> None:
        """Check the set of images, and that there are real images."""
        self.kept.check(module)
        if set(self.metrics) & {"FID", "KID"}:
            self._reference(module)

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """Results `FID`, `KID` and `CLIP`, as chosen."""
        job = self.kept.job(module)
        drawn = self._drawn(module, job)
        size = tuple(drawn["size"][0].tolist())
        detail = {**self.kept.detail(module, job), "resolution": resolution(torch.empty(1, *size))}
        results = []
        if set(self.metrics) & {"FID", "KID"}:
            results += self._distances(module, drawn["features"], size, detail)
        if "CLIP" in self.metrics:
            assert self.clip is not None
            embeddings = (drawn["image_embedding"], drawn["text_embedding"])
            results.append(
                compute_result(
                    "CLIP",
                    lambda: distances.clip_score(*embeddings),
                    True,
                    self.kept.name,
                    "",
                    {**detail, "clip": self.clip.name, "version": self.clip.version},
                )
            )
        return results

    def _drawn(self, module: UnlearningModule, job: ImageJob) -> dict[str, Tensor]:
        """Size, features and embeddings of every drawn image, from all ranks."""
        if "CLIP" in self.metrics and any(row.prompt is None for row in job.rows):
            raise InputError(
                "a CLIP score compares images with prompts, and the images are drawn from "
                "classes; leave CLIP out."
            )
        store = Outputs().to(module.device)
        for images, positions in image_cache(module).images(job):
            values = {
                "index": torch.tensor(positions, device=images.device),
                "size": torch.tensor(images.shape[1:], device=images.device).repeat(len(images), 1),
            }
            if self.features is not None and set(self.metrics) & {"FID", "KID"}:
                values["features"] = self.features.extract(images)
            if "CLIP" in self.metrics and self.clip is not None:
                values["image_embedding"] = self.clip.images(images)
                prompts = [str(job.rows[position].prompt) for position in positions]
                values["text_embedding"] = self.clip.texts(prompts)
            store.update("drawn", values)
        return store.compute()["drawn"]

    def _distances(
        self, module: UnlearningModule, drawn: Tensor, size: tuple[int, ...], detail: dict[str, Any]
    ) -> list[Result]:
        assert self.features is not None
        store = Outputs().to(module.device)
        # features of the real images
        for images, positions in self._real(module, size):
            features = self.features.extract(images.to(module.device))
            store.update(
                "real",
                {"index": torch.tensor(positions, device=module.device), "features": features},
            )
        real = store.compute()["real"]["features"]
        detail = {
            **detail,
            "features": self.features.name,
            "version": self.features.version,
            "dimensions": real.shape[1],
            "reference": self.reference,
            "real_images": len(real),
        }
        # distances with the floor among real images
        results = []
        if "FID" in self.metrics:
            results += self._with_floor("FID", distances.fid, real, drawn, detail)
        if "KID" in self.metrics:
            subsets: dict[str, Any] = {"subsets": self.subsets, "subset_size": self.subset_size}

            def kid(a: Tensor, b: Tensor) -> tuple[float, float]:
                return distances.kid(a, b, self.subsets, self.subset_size, self.seed)

            with suppress(UndefinedError):  # the result has the reason
                subsets["std"] = kid(real, drawn)[1]
            about = {**detail, **subsets}
            results += self._with_floor("KID", lambda a, b: kid(a, b)[0], real, drawn, about)
        return results

    def _with_floor(
        self,
        metric: str,
        distance: Callable[[Tensor, Tensor], float],
        real: Tensor,
        drawn: Tensor,
        detail: dict[str, Any],
    ) -> list[Result]:
        """Distance to real images, and its floor, that of real images among themselves."""
        split = self.kept.name
        result = compute_result(
            metric, lambda: distance(real, drawn), False, split, "", dict(detail)
        )
        if self.floor_pairs == 0:
            return [result]
        try:
            floor = distances.real_floor(distance, real, len(drawn), self.floor_pairs, self.seed)
        except UndefinedError as reason:
            undefined = Result(
                f"{metric}/floor", None, None, split, "", detail, undefined=str(reason)
            )
            return [result, undefined]
        sizes = " and ".join(map(str, floor.sizes))
        about = {**detail, "std": floor.std, "pairs": floor.pairs, "sets": f"{sizes} real images"}
        result = replace(
            result, detail={**result.detail, "floor": floor.mean, "floor_std": floor.std}
        )
        if result.value is not None and floor.covers(result.value):
            warning = (
                f"within the noise of real images, which score {floor.mean:.3g} ± "
                f"{floor.std:.2g} against each other in sets of this size."
            )
            result = replace(result, warning=warning)
        return [result, Result(f"{metric}/floor", floor.mean, None, split, "", about)]

    def _reference(self, module: UnlearningModule) -> tuple[Any, list[Path]]:
        """Part of the task with the real images, or None and their files."""
        if module.task is not None and self.reference in module.task.datasets:
            return module.task.datasets[self.reference], []
        if not Path(self.reference).is_dir():
            parts = ", ".join(module.task.datasets) if module.task is not None else "none"
            raise InputError(
                f"the reference {self.reference!r} is neither a part of the task ({parts}) nor a "
                "folder."
            )
        files = sorted(file for file in Path(self.reference).iterdir() if is_image(file))
        if not files:
            raise InputError(f"the reference {self.reference!r} has no images.")
        return None, files

    def _real(
        self, module: UnlearningModule, size: tuple[int, ...]
    ) -> Iterator[tuple[Tensor, list[int]]]:
        """Batches of real images `[B, C, H, W]` in [0, 1] for this rank, with their positions.

        They are resized to the size of the drawn images.
        """
        data, files = self._reference(module)
        count = min(len(files) if data is None else len(data), self.reference_limit or 2**63)
        batches = [
            list(range(start, min(start + self.batch_size, count)))
            for start in range(0, count, self.batch_size)
        ]
        rank = module.global_rank
        for positions in progress_bar(
            batches[rank :: module.world_size],
            "reading real images",
            disable=rank != 0,
            unit_scale=self.batch_size,
        ):
            if data is None:
                images = [_read(files[position], size) for position in positions]
                yield torch.stack(images), positions
                continue
            samples = fetch(data, np.asarray(positions))
            if "image" not in samples:
                raise InputError(
                    f"the part {self.reference!r} has no images to compare with; take another, or "
                    "a folder of images."
                )
            yield resize_and_crop(samples["image"].float(), (size[1], size[2])), positions


def _read(file: Path, size: tuple[int, ...]) -> Tensor:
    """An image file as `[C, H, W]` in [0, 1]."""
    image = decode_image(file.read_bytes(), file, "L" if size[0] == 1 else "RGB")
    array = np.array(image)
    levels = torch.from_numpy(array).view(*array.shape[:2], -1).permute(2, 0, 1)
    return resize_and_crop(levels[None].float() / 255, (size[1], size[2]))[0].clamp(0, 1)
