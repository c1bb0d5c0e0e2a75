"""Junk images: noise, one colour, shuffled patches, to test whether a judge can see nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

JUNK = ("noise", "constant", "shuffled")
"""Sorts of junk images."""
_GRID = 4  # patches of a side


def junk_images(images: Tensor, positions: Sequence[int]) -> dict[str, Tensor]:
    """Junk images of the size of others, by sort.

    `noise` is uniform in every pixel and channel, `constant` has one random colour, and `shuffled`
    has the patches of the image, a grid of 4 x 4, in another order.

    Args:
        images: `[B, C, H, W]` in [0, 1].
        positions: B numbers that alone determine the random draws.

    Example: shuffled patches keep every pixel.

        >>> image = torch.arange(64.0).view(1, 1, 8, 8) / 64
        >>> junk = junk_images(image, [3])["shuffled"]
        >>> bool((junk == image).all()), bool((junk.sort().values.sum() == image.sum()))
        (False, True)
    """
    drawn: dict[str, list[Tensor]] = {name: [] for name in JUNK}
    for image, position in zip(images.cpu(), positions, strict=True):
        generator = torch.Generator().manual_seed(int(position))
        drawn["noise"].append(torch.rand(image.shape, generator=generator))
        colour = torch.rand(len(image), 1, 1, generator=generator)
        drawn["constant"].append(colour.expand(image.shape))
        drawn["shuffled"].append(_shuffled(image, torch.randperm(_GRID**2, generator=generator)))
    return {name: torch.stack(rows).to(images.device) for name, rows in drawn.items()}


def _shuffled(image: Tensor, order: Tensor) -> Tensor:
    """Image with its patches in an order; pixels beyond the whole patches stay."""
    channels, height, width = image.shape
    tall, wide = height // _GRID, width // _GRID
    area = image[:, : tall * _GRID, : wide * _GRID]
    patches = area.reshape(channels, _GRID, tall, _GRID, wide).permute(1, 3, 0, 2, 4)
    patches = patches.reshape(_GRID**2, channels, tall, wide)[order]
    mixed = patches.reshape(_GRID, _GRID, channels, tall, wide).permute(2, 0, 3, 1, 4)
    junk = image.clone()
    junk[:, : tall * _GRID, : wide * _GRID] = mixed.reshape(channels, tall * _GRID, wide * _GRID)
    return junk
