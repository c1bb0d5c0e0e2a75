"""Image files: 16-bit levels are scaled, EXIF orientation is applied, 32-bit levels are refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mu.data.image_files import decode_image
from mu.utils.errors import InputError

RAMP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def encoded(levels: np.ndarray | Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image = levels if isinstance(levels, Image.Image) else Image.fromarray(levels)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("file_format", "levels"),
    [("PNG", RAMP), ("TIFF", RAMP), ("PPM", RAMP), ("TIFF", RAMP.astype(">u2"))],
    ids=["png", "tiff", "pgm", "big_endian_tiff"],
)
def test_a_ramp_of_16_bits_stays_a_ramp(file_format: str, levels: np.ndarray, mode) -> None:
    """Mutation that must fail it: convert("RGB") alone, which clips at 255."""
    image = np.asarray(decode_image(encoded(levels, file_format), "ramp", mode))
    grey = image if mode == "L" else image[..., 0]
    assert np.array_equal(grey, np.round(RAMP / 257)) and image.dtype == np.uint8
    assert len(np.unique(grey)) == 64 and (mode == "L" or (image == grey[..., None]).all())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """Mutation that must fail it: no exif_transpose."""
    upright = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    # stored pixels of an upright image, by the EXIF standard's eight orientations
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = encoded(np.ascontiguousarray(stored), "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode_image(raw, "photo", "L")), upright)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_levels_without_a_white_are_refused(dtype) -> None:
    with pytest.raises(InputError, match=r"scan\.tif has levels of 32 bits.* 8 or 16 bits"):
        decode_image(encoded(RAMP.astype(dtype), "TIFF"), "scan.tif")


def test_8_bit_images_keep_their_levels() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decode_image(encoded(colours, "PNG"), "a")), colours)


def test_content_that_is_no_image_is_refused() -> None:
    for raw in (b"", b"no image", encoded(RAMP, "PNG")[:60]):
        with pytest.raises(InputError, match=r"the image a\.png cannot be read") as refusal:
            decode_image(raw, "a.png")
        assert "BytesIO" not in str(refusal.value)
