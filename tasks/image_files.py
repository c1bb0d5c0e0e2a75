"""Images that are decoded when they are read, in the form of a field of TensorData."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from mu.data.image_files import decode_pixels
from tasks.image_lists import ImageList, map_files


class ImageFiles:
    """Images `[N, 3, H, W]`, uint8, decoded and resized by index.

    It takes the place of a tensor in a field of TensorData, with the same pixels.

    Args:
        files: list of the files.
        size: `(height, width)` of the images.
        rows: `[N]`, positions in the list; all when None.
    """

    dtype = torch.uint8

    def __init__(
        self, files: ImageList, size: tuple[int, int], rows: np.ndarray | None = None
    ) -> None:
        self.files = files
        self.size = size
        self.rows = np.arange(len(files)) if rows is None else np.asarray(rows, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all images together."""
        return len(self), 3, *self.size

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Images at these positions, as torch's function of this name gives them."""
        assert dim == 0, f"images are selected along dimension 0, not {dim}"
        return decode_files(self.files, self.rows[index.numpy()], self.size)

    def subset(self, rows: Tensor) -> ImageFiles:
        """The images at these positions, not yet read."""
        return ImageFiles(self.files, self.size, self.rows[rows.numpy()])

    def joined(self, other: ImageFiles) -> ImageFiles:
        """These images and those of another subset of the same list."""
        assert self.files is other.files, "images of two lists"
        return ImageFiles(self.files, self.size, np.concatenate([self.rows, other.rows]))


def decode_files(
    files: ImageList,
    rows: np.ndarray,
    size: tuple[int, int],
    title: str | None = None,
    digests: np.ndarray | None = None,
) -> Tensor:
    """Images of files, uint8 `[N, 3, H, W]`.

    Args:
        files: list of the files.
        rows: positions in the list.
        size: `(height, width)` to which the images are resized.
        title: text of a progress bar; None for no bar.
        digests: `[N, 32]` uint8, receives the SHA-256 of each file.

    Raises:
        InputError: when a file cannot be read, is no image, or was changed since it was listed.
    """
    images = np.empty((len(rows), 3, *size), dtype=np.uint8)

    def work(position: int) -> None:
        row = rows[position]
        raw = files.read(row)
        images[position] = decode_pixels(raw, files.path(row), size).transpose(2, 0, 1)
        if digests is not None:
            digests[position] = np.frombuffer(hashlib.sha256(raw).digest(), dtype=np.uint8)

    for _ in map_files(work, range(len(rows)), title):
        pass  # the images are written into the array
    return torch.from_numpy(images)
