"""PNG files of generated images, with the identifier of the job that drew them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mu.utils.errors import InputError
from mu.utils.files import replacing

_STAMP_KEY = "mu"  # PNG text chunk that identifies the job of a file


def write_png(path: Path, image: Tensor, stamp: str = "") -> None:
    """Write an image as a PNG file, atomically.

    Args:
        path: the file.
        image: `[C, H, W]` uint8 with one or three channels.
        stamp: identifier of the job, stored in a text chunk.

    Raises:
        InputError: for another number of channels.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise InputError(
            f"an image file has one or three channels, not the shape {list(image.shape)}."
        )
    array = image.permute(1, 2, 0).contiguous().numpy() if len(image) == 3 else image[0].numpy()
    chunk = PngInfo()
    if stamp:
        chunk.add_text(_STAMP_KEY, stamp)
    with replacing(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG", pnginfo=chunk)


def read_png(path: Path, stamp: str) -> Tensor | None:
    """Levels `[C, H, W]` of a PNG file; None when the file is missing or damaged.

    Args:
        path: the file.
        stamp: identifier of its job.

    Raises:
        InputError: when another job wrote the file.
    """
    import numpy as np
    from PIL import Image

    if not path.is_file():
        return None
    try:
        with Image.open(path) as opened:
            opened.load()
            stored_stamp = getattr(opened, "text", {}).get(_STAMP_KEY)
            array = np.asarray(opened)
    except (OSError, SyntaxError, ValueError):  # raised by PIL for a damaged file
        return None
    if stored_stamp != stamp:
        raise InputError(
            f"{path} was not drawn by this job; choose another folder, or remove the file."
        )
    return torch.from_numpy(array.copy()).view(*array.shape[:2], -1).permute(2, 0, 1)
