"""Images that the original generates before the first step: surrogates and generative replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mu.backbones import Condition
from mu.backbones.diffusion.sampler import Sampler
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import DataPlan
from mu.methods.components.latents import diffusion_backbone
from mu.utils import rng
from mu.utils.errors import MissingMethodError
from mu.utils.modules import eval_mode


class GeneratedImages:
    """Store of one generated image per sample, as bytes in main memory and in checkpoints.

    Sample i's image depends on its condition and on (seed, index i) only. Batches do not depend on
    the number of ranks, which share the work and then all hold all images. Checkpoints hold the
    images, because generated again they might differ by rounding.
    """

    def __init__(self) -> None:
        self._rows: dict[str, dict[int, Tensor]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    @torch.no_grad()
    def fill(
        self,
        module: UnlearningModule,
        name: str,
        plan: DataPlan,
        condition: Callable[[Batch], Condition],
        sampler: Sampler | None,
        batch_size: int,
    ) -> None:
        """Generate an image for every sample of a part, by the backbone, still the original.

        Args:
            module: in a fit, before its first step.
            name: purpose of the images; another name generates other images.
            plan: goes once over the part.
            condition: the condition of each sample's image, from a batch.
            sampler: the sampler; the backbone's own when None.
            batch_size: images generated at once.
        """
        backbone = diffusion_backbone(module)
        images = {}
        with eval_mode(module.backbone), module.precision():
            for batch in module.iterate_batches(
                plan, augment=False, batch_size=batch_size, shard="batches"
            ):
                part = next((value for key, value in batch.items() if key != "phase"), None)
                index = torch.empty(0, dtype=torch.int64, device=module.device)
                image = torch.empty(0, device=module.device)
                if part is not None:
                    index = part["index"]
                    seeds = rng.integers(module.seed, index, 0, f"drawn/{name}", 2**31)
                    image = backbone.generate(condition(part), seeds.tolist(), sampler)
                for rank_index, rank_image in _from_all_ranks(module, index, image):
                    pixels = (rank_image * 255).round().to("cpu", torch.uint8)
                    images.update(zip(rank_index.tolist(), pixels, strict=True))
        self._rows[name] = images

    def images_for(self, name: str, part: Batch) -> Tensor:
        """Images `[B, C, H, W]`, float32 in [0, 1], of the part's samples, on its device."""
        images = self._rows[name]
        pixels = torch.stack([images[index] for index in part["index"].tolist()])
        return pixels.to(part["index"].device).float() / 255

    def state_dict(self) -> dict[str, Any]:
        """Indices and images as tensors, for a checkpoint."""
        return {
            name: {"index": torch.tensor(list(rows)), "image": torch.stack(list(rows.values()))}
            for name, rows in self._rows.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the images of a checkpoint."""
        self._rows = {
            name: dict(zip(tensors["index"].tolist(), tensors["image"].cpu(), strict=True))
            for name, tensors in state.items()
        }


def _from_all_ranks(
    module: UnlearningModule, index: Tensor, image: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Gather `(index, image)` of each rank; ranks may have different numbers of images."""
    world = module.world_size
    if world == 1:
        return [(index, image)]
    # every rank's number of images and their shape
    local_shape = image.shape[1:] if len(index) else (0, 0, 0)
    local_count = torch.tensor([len(index), *local_shape], device=module.device)
    (counts,) = module.sum_over_ranks([_slot(local_count, module, world)])
    # all ranks' images, each padded to the largest number
    most = int(counts[:, 0].max())
    shape = counts[:, 1:].max(0).values.tolist()
    local_index = torch.zeros(most, dtype=torch.int64, device=module.device)
    local_image = torch.zeros(most, *shape, device=module.device)
    if len(index):
        local_index[: len(index)] = index
        local_image[: len(index)] = image
    all_index, all_image = module.sum_over_ranks(
        [_slot(local_index, module, world), _slot(local_image, module, world)]
    )
    return [
        (all_index[rank, :count], all_image[rank, :count])
        for rank, count in enumerate(counts[:, 0].tolist())
    ]


def _slot(value: Tensor, module: UnlearningModule, world: int) -> Tensor:
    """Zeros `[world, ...]` with this rank's value in its row, so that a sum over ranks gathers."""
    slots = torch.zeros(world, *value.shape, dtype=value.dtype, device=value.device)
    slots[module.global_rank] = value
    return slots


class GeneratesImages(UnlearningModule):
    """Base of methods that train on images which the original generates before the first step.

    A subclass sets `drawn = GeneratedImages()` in its constructor and overrides `draw_images`. The
    images are in the checkpoint, and are not generated again on resume.
    """

    drawn: GeneratedImages

    def draw_images(self) -> None:
        """Fill `self.drawn` with the images that the method needs."""
        raise MissingMethodError(f"{type(self).__name__} does not override draw_images().")

    def on_fit_start(self) -> None:
        """Generate the images first, because a mask may be computed on them."""
        with self.stopwatch("images"):
            self.draw_images()
        super().on_fit_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["drawn"] = self.drawn.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.drawn.load_state_dict(checkpoint.get("drawn", {}))
