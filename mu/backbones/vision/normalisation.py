"""Pixel normalisation as the first layer of an image network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mu.utils.errors import InputError

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1201, 0.1231, 0.1052)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of the pixels in [0, 1], per channel; `none` (0 and 1) needs no
entry.
"""


class Normalize(nn.Module):
    """Normalisation layer: pixels minus `mean` over `std`, per channel; both are buffers.

    Args:
        mean: one number for each channel.
        std: one positive number for each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            statistics = f"mean {list(mean)} and std {list(std)}"
            raise InputError(
                f"{statistics} do not fit: give one mean and one positive std for each channel."
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pixels of images `[B, C, H, W]` in [0, 1]."""
        if x.shape[1] != len(self.mean):
            expected = f"the network takes {len(self.mean)}"
            raise InputError(
                f"the images have {x.shape[1]} channels and {expected}; set in_channels to "
                f"{x.shape[1]}."
            )
        return (x - self.mean[:, None, None]) / self.std[:, None, None]


class ImageNetwork(nn.Module):
    """Image network (`body`) with its normalisation as first layer.

    It maps pixels `[B, C, H, W]` in [0, 1] to the output of the body.

    Args:
        body: network on normalised images; its state dict is what is exported.
        mean: see `Normalize`.
        std: see `Normalize`.
        input_size: `(C, H, W)` of the images that the body was trained on; None for any size. For
            information only: images are not resized.
    """

    def __init__(
        self,
        body: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.body = body
        self.input_size = tuple(input_size) if input_size is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, K]` of pixels in [0, 1]."""
        return self.body(self.normalize(x))


def statistics(
    mean: str | Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of pixels, from the name of a data set or from numbers.

    Args:
        mean: a key of `STATISTICS`, `none` or None (0 and 1), or one number for each channel.
        std: one number for each channel; goes with a numeric `mean` only.
        channels: number of channels.

    Raises:
        InputError: for an unknown name, or numbers that are not one for each channel.
    """
    if mean is None or isinstance(mean, str):
        if std is not None:
            raise InputError(f"std {list(std)} needs a mean in numbers beside it, not {mean!r}.")
        if mean in (None, "none"):
            return [0.0] * channels, [1.0] * channels
        if mean not in STATISTICS:
            raise InputError(
                f"no mean is known for {mean!r}; give numbers, or one of {', '.join(STATISTICS)}, "
                "none."
            )
        mean, std = STATISTICS[mean]
    if std is None or not len(mean) == len(std) == channels:
        described = f"mean {list(mean)} and std {None if std is None else list(std)}"
        raise InputError(
            f"{described} do not fit images of {channels} channels; give one number for each "
            "channel."
        )
    return [float(value) for value in mean], [float(value) for value in std]
