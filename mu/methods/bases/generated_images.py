"""Images that the original draws for samples before the first step: surrogates of what is
forgotten, replay of what is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mu.backbones import Condition
from mu.backbones.diffusion.base import Sampler
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import DataPlan
from mu.methods.components.latents import diffusion_backbone
from mu.utils import rng
from mu.utils.modules import eval_mode


class GeneratedImages:
    """One image a sample, kept as bytes in main memory, and in checkpoints: drawn anew, it might
    differ by rounding.

    Sample i's image depends on its condition and on (seed, index i) only. Batches do not depend on
    the number of ranks, which share the work and then all hold all images.
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
        """Draw an image for every sample of a part, by the backbone, which is still the original.

        Args:
            module: in a fit, before its first step.
            name: what the images are for; another name draws other images.
            plan: shows the part once.
            condition: what a sample's image shows.
            sampler: how; the backbone's own when None.
            batch_size: images drawn at once.
        """
        backbone = diffusion_backbone(module)
        found = {}
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
                    for row, kept in zip(
                        rank_index.tolist(),
                        (rank_image * 255).round().to("cpu", torch.uint8),
                        strict=True,
                    ):
                        found[row] = kept
        self._rows[name] = found

    def of(self, name: str, part: Batch) -> Tensor:
        """The samples' images, `[B, C, H, W]` float32 in [0, 1], on their device."""
        rows = self._rows[name]
        return (
            torch.stack([rows[row] for row in part["index"].tolist()])
            .to(part["index"].device)
            .float()
            / 255
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors, for a checkpoint."""
        return {
            name: {"index": torch.tensor(list(rows)), "image": torch.stack(list(rows.values()))}
            for name, rows in self._rows.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the images of a checkpoint."""
        self._rows = {
            name: dict(zip(kept["index"].tolist(), kept["image"].cpu(), strict=True))
            for name, kept in state.items()
        }


def _from_all_ranks(
    module: UnlearningModule, index: Tensor, image: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """`(index, image)` of each rank; ranks may have different numbers of rows."""
    world = module.world_size
    if world == 1:
        return [(index, image)]
    (counts,) = module.sum_over_ranks(
        [
            _slot(
                torch.tensor(
                    [len(index), *(image.shape[1:] if len(index) else (0, 0, 0))],
                    device=module.device,
                ),
                module,
                world,
            )
        ]
    )
    most = int(counts[:, 0].max())
    shape = counts[:, 1:].max(0).values.tolist()
    mine_index = torch.zeros(most, dtype=torch.int64, device=module.device)
    mine_image = torch.zeros(most, *shape, device=module.device)
    if len(index):
        mine_index[: len(index)], mine_image[: len(index)] = index, image
    all_index, all_image = module.sum_over_ranks(
        [_slot(mine_index, module, world), _slot(mine_image, module, world)]
    )
    return [
        (all_index[rank, :count], all_image[rank, :count])
        for rank, count in enumerate(counts[:, 0].tolist())
    ]


def _slot(value: Tensor, module: UnlearningModule, world: int) -> Tensor:
    """`[world, ...]`, zero but for this rank's row, so that a sum over ranks gathers."""
    slots = torch.zeros(world, *value.shape, dtype=value.dtype, device=value.device)
    slots[module.global_rank] = value
    return slots


class GeneratesImages(UnlearningModule):
    """Keeps drawn images in its checkpoints. The subclass makes `drawn`, and says in `draw_images`
    which images it needs.
    """

    drawn: GeneratedImages

    def draw_images(self) -> None:
        """Fill `self.drawn`."""
        raise TypeError(f"{type(self).__name__} does not say which images it needs.")

    def on_fit_start(self) -> None:
        """Images first, because a mask may be computed on them."""
        with self.stopwatch("images"):
            self.draw_images()
        super().on_fit_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["drawn"] = self.drawn.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.drawn.load_state_dict(checkpoint.get("drawn", {}))
