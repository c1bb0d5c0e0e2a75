"""Cache of latent posteriors by image content for a frozen image encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mu.backbones.diffusion.text_encoder import FrozenWeights
from mu.utils import rng

CAPACITY = 2**31
"""Bytes of main memory for cached posteriors.

They hold 16,000 images of 512 x 512 in single precision; images after that are encoded each time.
"""

Content = tuple[torch.Size, int, int]
"""Shape of an image, and two hashes of its exact content."""


class ContentHash:
    """Multilinear hash of images: two sums Σ_i x_i m_i mod 2⁶⁴ over float32 bits, random m_i.

    The sums are computed on the device of the image, so that only two numbers an image are copied
    to main memory. Two images in [0, 1] that differ agree with a probability of at most 2⁻⁷² over
    the m (multilinear hashing after Carter and Wegman, "Universal classes of hash functions",
    1979): 2⁻⁽⁶⁴⁻ᵛ⁾ for each number, where 2ᵛ divides every difference of bits, v ≤ 28 in floats.
    """

    def __init__(self) -> None:
        self._multipliers = torch.empty(2, 0, dtype=torch.int64)

    def hash(self, images: Tensor) -> list[Content]:
        """Content hashes of images `[B, ...]`."""
        rows = (
            images.detach()
            .to(torch.float32)
            .reshape(len(images), -1)
            .contiguous()
            .view(torch.int32)
        )
        if self._multipliers.shape[1] != rows.shape[1] or self._multipliers.device != rows.device:
            self._multipliers = rng.bits(
                0, torch.arange(2, device=rows.device), 0, "contents", rows.shape[1]
            )
        # all at once would take four times the batch's memory
        sums = torch.stack([(row * self._multipliers).sum(1) for row in rows])
        return [(images.shape[1:], first, second) for first, second in sums.tolist()]


class Posteriors:
    """Cache of posterior means and standard deviations by the image's exact content.

    Randomly augmented images are new each time, so the cache does not help; it then stops at its
    capacity.

    Args:
        capacity: size of the cache in bytes.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.cached_bytes = 0
        self._posteriors: dict[Content, Tensor] = {}
        self._weights = FrozenWeights()
        self._contents = ContentHash()

    def encode(self, encoder: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of the latents of `images`, without gradient.

        Args:
            encoder: an AutoencoderKL.
            images: `[B, 3, H, W]` in [0, 1], on any device.
        """
        if self._weights.changed(encoder, images.device.type):
            self._posteriors = {}
            self.cached_bytes = 0
        keys = self._contents.hash(images)
        moments: dict[Content, Tensor] = {}
        for position, key in enumerate(keys):
            if key not in moments:
                moments[key] = (
                    self._posteriors[key].to(images.device)
                    if key in self._posteriors
                    else self._encoded(encoder, images[position], key)
                )
        both = torch.stack([moments[key] for key in keys])
        return both[:, 0], both[:, 1]

    def _encoded(self, encoder: Any, image: Tensor, key: Content) -> Tensor:
        """Mean and deviation `[2, ...]` of one image, encoded apart from its batch."""
        posterior = encoder.encode(image[None].to(encoder.dtype) * 2 - 1).latent_dist
        both = torch.cat([posterior.mean, posterior.std])
        if self.cached_bytes + both.nbytes <= self.capacity:
            self._posteriors[key], self.cached_bytes = both.cpu(), self.cached_bytes + both.nbytes
        return both

    def __deepcopy__(self, memo: dict[int, Any]) -> Posteriors:
        """Empty cache, because the copy has another encoder."""
        return Posteriors(self.capacity)
