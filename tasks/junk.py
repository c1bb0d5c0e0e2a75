"""Junk images among those of a task, to train a judge that can say that it sees nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mu.utils.errors import InputError
from mu.utils.rng import uniform
from tasks.augment import Augmentation, Batch

SORTS = ("noise", "clouds", "constant", "shuffled")
"""Sorts of junk: uniform noise, smooth noise, one colour, patches of the image in another order."""
_GRID = 4  # patches of a side


@dataclass(frozen=True)
class JunkImages(Augmentation):
    """Junk images with a label of their own, in place of a share of the images on each visit.

    Attributes:
        label: label of junk, mostly the number of the other classes.
        share: share of replaced images, in (0, 1).
    """

    label: int
    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"the share of junk images must lie in (0, 1), not {self.share}.")

    @property
    def highest_label(self) -> int:
        return self.label

    def __call__(self, part: Batch, seed: int) -> Batch:
        """Batch with junk in `image` and `label`, see `Augmentation`."""
        index = part["index"]
        visit = part["visit"]
        image = part["image"].clone()
        label = part["label"].clone()
        draws = uniform(seed, index, visit, "augment/junk", 2)
        chosen = (draws[:, 1] * len(SORTS)).long()
        for position, sort in enumerate(SORTS):
            rows = ((draws[:, 0] < self.share) & (chosen == position)).nonzero()[:, 0]
            if len(rows):
                image[rows] = _junk(sort, image[rows], seed, index[rows], visit[rows]).to(image)
                label[rows] = self.label
        return {**part, "image": image, "label": label}


def _junk(sort: str, images: Tensor, seed: int, index: Tensor, visit: Tensor) -> Tensor:
    """Junk of a sort and of the shape of the images, in [0, 1]."""
    size, channels, height, width = images.shape

    def draw(*shape: int) -> Tensor:
        return uniform(seed, index, visit, f"augment/junk/{sort}", *shape)

    if sort == "noise":
        return draw(channels * height * width).view(images.shape)
    if sort == "clouds":
        return interpolate(
            draw(channels, 3, 3), (height, width), mode="bilinear", align_corners=False
        )
    if sort == "constant":
        return draw(channels).view(size, channels, 1, 1).expand_as(images)
    tall, wide = height // _GRID, width // _GRID
    area = images[:, :, : tall * _GRID, : wide * _GRID]
    patches = area.reshape(size, channels, _GRID, tall, _GRID, wide).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(size, _GRID**2, channels, tall, wide)
    order = draw(_GRID**2).argsort(1)
    mixed = patches[torch.arange(size)[:, None], order]
    mixed = mixed.view(size, _GRID, _GRID, channels, tall, wide).permute(0, 3, 1, 4, 2, 5)
    junk = images.clone()  # pixels beyond the whole patches stay
    junk[:, :, : tall * _GRID, : wide * _GRID] = mixed.reshape(
        size, channels, tall * _GRID, wide * _GRID
    )
    return junk
