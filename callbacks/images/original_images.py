"""Images of the original model, drawn when a fit starts and saved for the test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mu.core.module import UnlearningModule
from mu.core.original import original_backbone
from mu.data.batch import fetch
from mu.evaluation.images.drawing import ImageJob, levels
from mu.metrics.outputs import Outputs
from mu.utils.errors import InputError
from mu.utils.files import save_tensors
from mu.utils.weights import weights_hash

TARGETS = "attack_targets.safetensors"
"""File of the target images of an attack, in the run folder."""


def has_original_weights(module: UnlearningModule) -> bool:
    """Whether the backbone still has the original weights."""
    return weights_hash(module.backbone) == module.original_hash


def save_originals(file: Path, module: UnlearningModule, jobs: Mapping[str, ImageJob]) -> None:
    """Draw jobs with the original weights and write the images.

    Nothing is written where the backbone has other weights already (a run that is resumed).
    """
    if not has_original_weights(module):
        return
    images = {}
    keys = {}
    for name, job in jobs.items():
        batches = job.run(module.backbone, module.global_rank, module.world_size, module.precision)
        images[name] = levels(gather_images(module, batches, range(len(job.rows))))
        keys[name] = job.key()
    if module.global_rank == 0:
        save_tensors(file, images, {**keys, "original": module.original_hash})


def load_originals(file: Path, module: UnlearningModule, name: str, job: ImageJob) -> Tensor | None:
    """Images `[N, C, H, W]` of `save_originals`; None for those of another job or run."""
    from safetensors import safe_open

    if not file.is_file():
        return None
    with safe_open(file, framework="pt") as opened:
        metadata: Mapping[str, str] = opened.metadata() or {}
        if metadata.get(name) != job.key() or metadata.get("original") != module.original_hash:
            return None
        return opened.get_tensor(name).float() / 255


def gather_images(
    module: UnlearningModule, batches: Iterable[tuple[Tensor, list[int]]], positions: Sequence[int]
) -> Tensor:
    """Images of a job at some positions, from all ranks: `[N, C, H, W]` on the CPU.

    Args:
        module: module whose ranks drew them.
        batches: images, and their positions in the job.
        positions: the images to gather; they keep this order.
    """
    store = Outputs().to(module.device)
    indices = {position: index for index, position in enumerate(positions)}
    for images, drawn in batches:
        rows = [
            (row, indices[position]) for row, position in enumerate(drawn) if position in indices
        ]
        if rows:
            store.update(
                "images",
                {
                    "index": torch.tensor([index for _, index in rows], device=images.device),
                    "image": images[[row for row, _ in rows]],
                },
            )
    return store.compute()["images"]["image"].cpu()


# ---- targets of an attack ------------------------------------------------------------------------


def original_targets(folder: Path, module: UnlearningModule, job: ImageJob) -> Tensor:
    """Images that the original model draws for the prompts of a job, `[N, 3, H, W]` on the CPU.

    They are read from the run folder, or else drawn by the original, which is built anew where it
    is not at hand (see `mu.core.original`).

    Raises:
        InputError: when the original is not known.
    """
    images = load_originals(folder / TARGETS, module, "targets", job)
    if images is not None:
        return images
    try:
        model = original_backbone(module)
    except InputError as reason:
        raise InputError(
            "Robustness needs images of the original model, which cannot be drawn, because "
            f"{str(reason).rstrip('.')}; fit with this suite among the callbacks, or take targets: "
            "task."
        ) from reason
    batches = job.run(model, module.global_rank, module.world_size, module.precision)
    return gather_images(module, batches, range(len(job.rows)))


def task_targets(module: UnlearningModule, part: str, job: ImageJob) -> Tensor:
    """Images of the task's samples whose prompts a job draws, `[N, 3, H, W]` on the CPU.

    Raises:
        InputError: when the prompts come from a file, or the part has no images.
    """
    samples = [row.sample for row in job.rows]
    if module.task is None or any(sample is None for sample in samples):
        raise InputError(
            "targets of the task are images of its prompts, and these come from a file; take "
            "targets: original."
        )
    batch = fetch(module.task.datasets[part], np.asarray(samples))
    if "image" not in batch:
        raise InputError(
            f"the part {part!r} has no images to take for targets; take targets: original."
        )
    return batch["image"].float()


def check_size(module: UnlearningModule, targets: Tensor) -> None:
    """Check that target images have the size of the served model.

    Raises:
        InputError: when they do not.
    """
    served: Any = module.served()
    shape = tuple(served.encode(targets[:1].to(module.device)).shape[1:])
    if shape != tuple(served.sample_shape):
        raise InputError(
            f"the target images of {targets.shape[-1]}x{targets.shape[-2]} pixels are not of the "
            "model's size; take targets: original."
        )
