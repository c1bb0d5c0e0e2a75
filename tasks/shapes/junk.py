"""Junk images of the shapes task: images without a shape, to train a judge that can say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mu.utils.rng import uniform
from tasks.shapes.render import JITTER, SIZE, ground
from tasks.shapes.words import BACKGROUNDS, Attribute

_GRID = 4  # patches of a side
SORTS: dict[Attribute, tuple[str, ...]] = {
    "shape": ("noise", "clouds", "constant", "shuffled", "ground"),
    "colour": ("noise", "ground"),
    "background": ("noise", "clouds"),
}
"""Sorts of images that show no value of an attribute."""


@dataclass(frozen=True)
class JunkImages:
    """Augmentation that replaces a share of the images by junk, with a label of its own.

    Sorts of junk: `noise` (uniform, or Gaussian around grey), `clouds` (smooth noise), `constant`
    (one colour), `shuffled` (patches of the image in another order), `ground` (a background alone).

    Attributes:
        share: share of replaced images, in (0, 1).
        attribute: attribute of which the junk shows no value, see `SORTS`.
        label: label of junk.
    """

    share: float
    attribute: Attribute
    label: int

    @property
    def highest_label(self) -> int:
        """Label of junk, the largest of all."""
        return self.label

    def __call__(self, part: dict[str, Any], seed: int) -> dict[str, Any]:
        """Batch with junk in `image` and `label`, keyed by (seed, index, visit)."""
        index = part["index"]
        visit = part["visit"]
        draws = uniform(seed, index, visit, "shapes/junk", 2)
        sorts = SORTS[self.attribute]
        image = part["image"].clone()
        label = part["label"].clone()
        chosen = (draws[:, 1] * len(sorts)).long()
        for position, sort in enumerate(sorts):
            rows = ((draws[:, 0] < self.share) & (chosen == position)).nonzero()[:, 0]
            if len(rows):
                image[rows] = _junk(sort, image[rows], seed, index[rows], visit[rows])
                label[rows] = self.label
        return {**part, "image": image, "label": label}


def _junk(sort: str, images: Tensor, seed: int, index: Tensor, visit: Tensor) -> Tensor:
    """Junk `[B, 3, 32, 32]` in [0, 1] of a sort."""

    def draw(*shape: int) -> Tensor:
        return uniform(seed, index, visit, f"shapes/junk/{sort}", *shape)

    if sort == "noise":
        values = draw(3 * SIZE * SIZE + 1)
        pixels = values[:, 1:].reshape(-1, 3, SIZE, SIZE)
        grey = (0.5 + 0.25 * torch.special.ndtri(pixels)).clamp(0, 1)
        return torch.where(values[:, :1, None, None] < 0.5, pixels, grey)
    if sort == "clouds":
        size = (SIZE, SIZE)
        return interpolate(draw(3, 4, 4), size, mode="bilinear", align_corners=False)
    if sort == "constant":
        return draw(3)[:, :, None, None].expand(-1, -1, SIZE, SIZE)
    if sort == "ground":
        values = draw(JITTER + 1)
        background = (values[:, -1] * len(BACKGROUNDS)).long()
        return ground(background, values[:, :JITTER])[:, None].expand(-1, 3, -1, -1)
    patch = SIZE // _GRID
    patches = images.view(-1, 3, _GRID, patch, _GRID, patch).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(-1, _GRID**2, 3, patch, patch)
    order = draw(_GRID**2).argsort(1)
    mixed = patches[torch.arange(len(images))[:, None], order]
    mixed = mixed.view(-1, _GRID, _GRID, 3, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return mixed.reshape(-1, 3, SIZE, SIZE)
