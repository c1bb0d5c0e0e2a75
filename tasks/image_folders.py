"""Reader of image folders by class."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mu.utils.errors import InputError
from tasks.selectors import draw, portion
from tasks.tensor_data import Source, drawn_source, fixed_source, pixel_stats

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


def image_folder_source(
    root: str | Path, size: int | tuple[int, int], test_fraction: float | None = None, seed: int = 0
) -> Source:
    """Read image folders by class: `root/{train,test}/CLASS/*`, or one tree `root/CLASS/*`.

    Files without an image suffix are skipped. Images are converted to RGB and resized, bilinear
    with antialiasing, to exactly `size`; the aspect ratio changes. Indices number the files in
    sorted order, training before test where they are separate.

    Args:
        root: the folder.
        size: `(height, width)`, or one number for both.
        test_fraction: for one tree, the share of each class drawn for the test set, in (0, 1); None
            where `test` exists.
        seed: seed of the draw.

    Returns:
        A source named by the hash of its files, with mean and deviation of its training pixels.

    Raises:
        InputError: when the folder is missing, empty or inconsistent, or an image cannot be read.
    """
    root = Path(root)
    height, width = (size, size) if isinstance(size, int) else size
    if not root.is_dir():
        raise InputError(
            f"there is no folder {root}; it should hold train/CLASS/ and test/CLASS/ with images, "
            "or CLASS/ alone."
        )
    if min(height, width) < 1:
        raise InputError(f"images cannot be resized to {size}; give a size of at least 1 pixel.")
    has_test = (root / "train").is_dir() and (root / "test").is_dir()
    if has_test and test_fraction is not None:
        raise InputError(f"{root} has a test folder, so test_fraction must be left out.")
    if not has_test and test_fraction is None:
        raise InputError(
            f"{root} does not have both train/ and test/; give test_fraction to draw a test set "
            "from its classes."
        )
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise InputError(f"test_fraction must lie between 0 and 1, not {test_fraction}.")
    if test_fraction is None:
        return _two_trees(root, (height, width))
    return _one_tree(root, (height, width), test_fraction, seed)


def _two_trees(root: Path, size: tuple[int, int]) -> Source:
    classes = _classes(root / "train")
    unknown = sorted(set(_classes(root / "test")) - set(classes))
    if unknown:
        raise InputError(
            f"{root}/test has the class `{unknown[0]}`, which {root}/train does not have."
        )
    digest = hashlib.sha256(f"{size} train".encode())
    train = _decode(root / "train", classes, size, digest)
    digest.update(b"test")
    test = _decode(root / "test", classes, size, digest)
    return fixed_source(
        f"folder-{digest.hexdigest()[:12]}", train, test, tuple(classes), pixel_stats(train[0])
    )


def _one_tree(root: Path, size: tuple[int, int], test_fraction: float, seed: int) -> Source:
    classes = _classes(root)
    digest = hashlib.sha256(str(size).encode())
    images, labels = _decode(root, classes, size, digest)
    label_array = labels.numpy()
    rows = np.arange(len(labels), dtype=np.int64)
    members = [rows[label_array == label] for label in range(len(classes))]
    test = np.sort(
        np.concatenate([draw(m, portion(len(m), test_fraction), seed, "test") for m in members])
    )
    train = np.setdiff1d(rows, test)
    empty_classes = np.setdiff1d(label_array, label_array[train])
    if not len(test) or len(empty_classes):
        problem = "a class without training images" if len(empty_classes) else "no test image"
        raise InputError(
            f"test_fraction {test_fraction} leaves {problem}; {root} has {len(rows)} images in "
            f"{len(classes)} classes."
        )
    mean, std = pixel_stats(images[torch.from_numpy(train)])
    return drawn_source(
        f"folder-{digest.hexdigest()[:12]}",
        {"image": images, "label": labels},
        train,
        num_classes=len(classes),
        class_names=tuple(classes),
        mean=mean,
        std=std,
        input_size=tuple(images.shape[1:]),
    )


def _classes(folder: Path) -> list[str]:
    names = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise InputError(
            f"{folder} has no class folders; every class needs a folder of its images."
        )
    return names


def _decode(
    folder: Path, classes: list[str], size: tuple[int, int], digest: Any
) -> tuple[Tensor, Tensor]:
    """Images uint8 `[N, 3, H, W]` and labels `[N]`; classes without a folder have no samples."""
    images = []
    labels = []
    for label, name in enumerate(classes):
        files = sorted(
            file
            for file in (folder / name).glob("*")
            if file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith(".")
        )
        if not files and (folder / name).is_dir():
            raise InputError(
                f"the class folder {folder / name} holds no image; remove it or put images there."
            )
        for file in files:
            raw = file.read_bytes()
            digest.update(f"{name}/{file.name}/{len(raw)}".encode() + raw)
            images.append(_read_image(file, raw, size))
            labels.append(label)
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()), torch.tensor(labels)


def _read_image(file: Path, raw: bytes, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    height, width = size
    try:
        with Image.open(io.BytesIO(raw)) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"the image {file} cannot be read ({error}).") from error
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)
