"""Reading of image files: upright, as 8-bit levels."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mu.utils.errors import InputError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes of the files that are taken for images, in lower case."""
_BITS_PER_SAMPLE = 258  # tag of TIFF files


def is_image(file: Path) -> bool:
    """Whether a file is a visible one with an image suffix.

    >>> is_image(Path("cat.JPG")), is_image(Path("._cat.jpg"))
    (True, False)
    """
    return file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".")


def decode_image(raw: bytes, file: Path | str, mode: Literal["RGB", "L"] = "RGB") -> Any:
    """Decode an image to a PIL image of 8-bit levels, upright.

    The EXIF orientation is applied. Grey levels of 16 bits (PNG, PGM, TIFF) are scaled to 8 bits,
    `round(255 v / 65535)`, and so are the 12 bits of a TIFF; PIL alone would clip them at 255.

    Args:
        raw: content of the file.
        file: its path, for messages.
        mode: `RGB`, or `L` for grey levels.

    Raises:
        InputError: when the content is no image, or its levels have no defined white (32-bit
            integers and floating-point numbers).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(raw)) as image:
            image.load()
            upright: Any = image
            ImageOps.exif_transpose(upright, in_place=True)
            if upright.mode == "F" or (upright.mode == "I" and image.format == "TIFF"):
                raise InputError(
                    f"the image {file} has levels of 32 bits, for which no white is defined; save "
                    "it with 8 or 16 bits."
                )
            if upright.mode.startswith("I"):
                bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
                upright = _eight_bits(np.asarray(upright), bits)
            return upright if upright.mode == mode else upright.convert(mode)
    except InputError:
        raise
    except (
        OSError,
        ValueError,
        SyntaxError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        # of bytes that it does not know, PIL names the object in memory
        reason = "it is no image" if isinstance(error, UnidentifiedImageError) else error
        raise InputError(f"the image {file} cannot be read ({reason}).") from error


def decode_pixels(raw: bytes, file: Path | str, size: tuple[int, int]) -> np.ndarray:
    """Decode an image to RGB levels, uint8 `[H, W, 3]`, of exactly this size.

    Another size is resized, bilinear with antialiasing; the aspect ratio changes.

    Args:
        raw: content of the file.
        file: its path, for messages.
        size: `(height, width)`.

    Raises:
        InputError: as in `decode_image`.
    """
    from PIL import Image

    height, width = size
    picture = decode_image(raw, file)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def _eight_bits(levels: np.ndarray, bits: int) -> Any:
    """PIL image of 8 bits from levels of `bits` bits, rounded to the nearest level."""
    from PIL import Image

    white = 2**bits - 1
    scaled = (np.clip(levels.astype(np.int64), 0, white) * 255 + white // 2) // white
    return Image.fromarray(scaled.astype(np.uint8))
