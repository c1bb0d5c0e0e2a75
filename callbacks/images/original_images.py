"""Images of the original model, drawn when a fit starts and kept in the run folder for the test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mu.core.module import UnlearningModule
from mu.evaluation.images.drawing import ImageJob, levels
from mu.metrics.outputs import Outputs
from mu.utils.files import save_tensors
from mu.utils.weights import weights_hash


def is_original(module: UnlearningModule) -> bool:
    """Whether the backbone still has the weights that the run began from."""
    return weights_hash(module.backbone) == module.original_hash


def keep(file: Path, module: UnlearningModule, jobs: Mapping[str, ImageJob]) -> None:
    """Draw jobs with the backbone as it is, and write them; nothing if it is the original no more
    (a run that is resumed).
    """
    if not is_original(module):
        return
    found = {}
    keys = {}
    for name, job in jobs.items():
        batches = job.run(module.backbone, module.global_rank, module.world_size, module.precision)
        found[name] = levels(gathered(module, batches, range(len(job.rows))))
        keys[name] = job.key()
    if module.global_rank == 0:
        save_tensors(file, found, {**keys, "original": module.original_hash})


def kept(file: Path, module: UnlearningModule, name: str, job: ImageJob) -> Tensor | None:
    """The images `[N, C, H, W]` of a job, if they were drawn for these rows by this run's original;
    None elsewhere.
    """
    from safetensors import safe_open

    if not file.is_file():
        return None
    with safe_open(file, framework="pt") as opened:
        said: Mapping[str, str] = opened.metadata() or {}
        mine = said.get(name) == job.key() and said.get("original") == module.original_hash
        return opened.get_tensor(name).float() / 255 if mine else None


def gathered(
    module: UnlearningModule, batches: Iterable[tuple[Tensor, list[int]]], places: Sequence[int]
) -> Tensor:
    """The images at some places of a job, from all ranks, in the order of `places`: `[N, C, H, W]`
    on the CPU.
    """
    store = Outputs().to(module.device)
    wanted = {place: number for number, place in enumerate(places)}
    for images, there in batches:
        rows = [(row, wanted[place]) for row, place in enumerate(there) if place in wanted]
        if rows:
            store.update(
                "images",
                {
                    "index": torch.tensor([number for _, number in rows], device=images.device),
                    "image": images[[row for row, _ in rows]],
                },
            )
    return store.compute()["images"]["image"].cpu()
