"""Image augmentations of batches, a pure function of each sample's `(seed, index, visit)`.

`augment(batch, seed)` returns a batch with a new `image` and leaves its argument unchanged. The
augmentation of a sample does not depend on its batch, rank or position, and differs from visit to
visit. Each implementation is the fastest exact one on one CPU thread; comments name the
alternatives.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mu.utils.errors import InputError
from mu.utils.rng import integers, stream_id, uniform

Batch = dict[str, Tensor]
_LARGE = 2**15  # values of an image


class Augmentation(ABC):
    """Base of augmentations, keyed by seed, index and visit."""

    @property
    def highest_label(self) -> int:
        """Largest label that the augmentation itself gives; -1 where it keeps labels."""
        return -1

    @abstractmethod
    def __call__(self, part: Batch, seed: int) -> Batch:
        """Batch with a new `image`.

        Args:
            part: batch with `image` float32 `[B, C, H, W]` in [0, 1], `index` and `visit` int64
                `[B]`, and further fields.
            seed: seed of the run.
        """


@dataclass(frozen=True)
class RandomCrop(Augmentation):
    """Random crop of the original size after zero padding, drawn uniformly.

    On tiny images (8x8 digits), `RandomCrop(1)` is a random shift by one pixel.

    Attributes:
        padding: pixels on each side, at least 1.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 1:
            raise InputError(
                f"RandomCrop pads by at least 1 pixel, not {self.padding}; leave it out for no "
                "crop."
            )

    def __call__(self, part: Batch, seed: int) -> Batch:
        """Augmented batch, see `Augmentation`."""
        corner = integers(
            seed, part["index"], part["visit"], "augment/crop", 2 * self.padding + 1, 2
        )
        return {**part, "image": crop(part["image"], corner[:, 0], corner[:, 1], self.padding)}


@dataclass(frozen=True)
class HorizontalFlip(Augmentation):
    """Horizontal flip with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise InputError(f"the probability of HorizontalFlip must lie in [0, 1], not {self.p}.")

    def __call__(self, part: Batch, seed: int) -> Batch:
        """Augmented batch, see `Augmentation`."""
        image = part["image"]
        flips = uniform(seed, part["index"], part["visit"], "augment/flip", 1)[:, 0] < self.p
        if _is_large(image):
            # 12 ms for [64, 3, 224, 224], against 27 for all images at once
            copies = torch.empty_like(image)
            for row, flip in enumerate(flips.tolist()):
                copies[row] = image[row].flip(-1) if flip else image[row]
            return {**part, "image": copies}
        flipped = flips.nonzero()[:, 0].to(image.device)
        # 0.45 ms for [256, 3, 32, 32]; torch.where on all mirrored images takes 0.7, a gather 0.5
        return {
            **part,
            "image": image.index_copy(0, flipped, image.index_select(0, flipped).flip(-1)),
        }


@dataclass(frozen=True)
class Rotation(Augmentation):
    """Rotation by a random angle in `[-degrees, degrees]`, bilinear, zero padding."""

    degrees: float = 15.0

    def __post_init__(self) -> None:
        if not 0 < self.degrees <= 180:
            raise InputError(
                f"Rotation takes a largest angle in (0, 180] degrees, not {self.degrees}."
            )

    def __call__(self, part: Batch, seed: int) -> Batch:
        """Augmented batch, see `Augmentation`."""
        unit = uniform(seed, part["index"], part["visit"], "augment/rotation", 1)[:, 0]
        return {**part, "image": rotate(part["image"], (2 * unit - 1) * self.degrees)}


@dataclass(frozen=True)
class Compose(Augmentation):
    """Sequence of augmentations with independent draws, so that one class may occur twice."""

    steps: Sequence[Augmentation]

    @property
    def highest_label(self) -> int:
        return max((step.highest_label for step in self.steps), default=-1)

    def __call__(self, part: Batch, seed: int) -> Batch:
        """Augmented batch, see `Augmentation`."""
        for position, step in enumerate(self.steps):
            part = step(part, stream_id("augment/compose", position, seed))
        return part


def crop(image: Tensor, y: Tensor, x: Tensor, padding: int) -> Tensor:
    """Crops of zero-padded images: `pad(image[b])[:, y[b] : y[b] + H, x[b] : x[b] + W]`.

    Args:
        image: `[B, C, H, W]`, any dtype.
        y, x: `[B]` int64 in `[0, 2 * padding]`, the upper left corner of each crop.
        padding: pixels of zeros on each side.

    Returns:
        `[B, C, H, W]`, a new tensor.
    """
    count, channels, height, width = image.shape
    if _is_large(image):
        # 22 ms for [64, 3, 224, 224], against 47 for all images at once
        return _crop_each(image, y.tolist(), x.tolist(), padding)
    padded = F.pad(image, (padding,) * 4).contiguous()
    # Viewed as overlapping rows of `width` elements, one starting at each element, each row of the
    # result is one contiguous copy: 0.5 ms for [256, 3, 32, 32], against 1.2 for unfold and an
    # index, 1.3 for a gather of elements, 2.1 for a loop, 3.0 grouped by offset.
    runs = padded.as_strided((padded.numel() - width + 1, width), (1, 1))
    y = y.to(image.device)
    x = x.to(image.device)
    row = y[:, None] + torch.arange(height, device=image.device)
    plane = torch.arange(count * channels, device=image.device).view(count, channels, 1) * (
        height + 2 * padding
    )
    start = (plane + row[:, None, :]) * (width + 2 * padding) + x[:, None, None]
    return runs.index_select(0, start.flatten()).view(image.shape)


def _crop_each(image: Tensor, y: list[int], x: list[int], padding: int) -> Tensor:
    """Crops of `crop`, image by image, without a padded copy."""
    height, width = image.shape[-2:]
    crops = torch.empty_like(image)
    for row, (top, left) in enumerate(zip(y, x, strict=True)):
        # how far the crop lies below and right of the image
        down = top - padding
        right = left - padding
        if down or right:
            crops[row].zero_()
        to_rows, from_rows = _overlap(down, height)
        to_columns, from_columns = _overlap(right, width)
        crops[row, :, to_rows, to_columns] = image[row, :, from_rows, from_columns]
    return crops


def _overlap(offset: int, length: int) -> tuple[slice, slice]:
    """Positions in a crop, and in an image, where a crop that is moved by `offset` lies on it.

    >>> _overlap(-2, 8), _overlap(1, 8)
    ((slice(2, 8, None), slice(0, 6, None)), (slice(0, 7, None), slice(1, 8, None)))
    """
    size = max(length - abs(offset), 0)
    to_start = min(max(-offset, 0), length)
    from_start = min(max(offset, 0), length)
    return slice(to_start, to_start + size), slice(from_start, from_start + size)


def _is_large(image: Tensor) -> bool:
    """Whether images are so large that a copy of each costs more than a call for each."""
    return image.device.type == "cpu" and image[0].numel() >= _LARGE


def rotate(image: Tensor, degrees: Tensor) -> Tensor:
    """Rotate images counter-clockwise about their centres, bilinear, zero padding.

    Args:
        image: `[B, C, H, W]` float.
        degrees: `[B]` float.

    Returns:
        `[B, C, H, W]` of the image's dtype.
    """
    height, width = image.shape[-2:]
    radians = (degrees * (math.pi / 180)).to(image)
    cos = radians.cos()
    sin = radians.sin()
    zero = torch.zeros_like(radians)
    # affine_grid works in units of half the image, so a rectangle needs the ratio of its sides
    across = height / width
    down = width / height
    theta = torch.stack([cos, -sin * across, zero, sin * down, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
