"""Reader of image folders by class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import torch
from torch import Tensor

from mu.data.image_files import decode_image, is_image
from mu.utils.errors import InputError
from tasks.selectors import draw, portion
from tasks.tensor_data import Source, drawn_source, fixed_source, pixel_stats

VALIDATION_NAMES = ("val", "valid", "validation")
"""Names of the folder that is the validation set beside `test`, and the test set without it."""


def image_folder_source(
    root: str | Path, size: int | tuple[int, int], test_fraction: float | None = None, seed: int = 0
) -> Source:
    """Read image folders by class: `root/{train,val,test}/CLASS/*`, or one tree `root/CLASS/*`.

    Images lie at any depth below their class folder; files without an image suffix are skipped.
    Images are turned upright (EXIF), converted to 8-bit RGB and resized, bilinear with
    antialiasing, to exactly `size`; the aspect ratio changes. Indices number the files in sorted
    order, training before test before validation where they are separate.

    Args:
        root: the folder. Its `val` (`valid`, `validation`) is the test set where there is no
            `test`, else the validation set.
        size: `(height, width)`, or one number for both.
        test_fraction: for one tree (`root`, or `root/train` alone), the share of each class drawn
            for the test set, in (0, 1); None where a test set exists.
        seed: seed of the draw.

    Returns:
        A source named by the hash of its files, with mean and deviation of its training pixels;
        class names are in composed Unicode (NFC).

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
    trees = _trees(root)
    if trees.test is not None and test_fraction is not None:
        raise InputError(
            f"{trees.test} is the test set of {root}, so test_fraction must be left out."
        )
    if trees.test is None and test_fraction is None:
        raise InputError(
            f"{root} has no test set; give test_fraction to draw one from its classes, or put the "
            "images in train/CLASS/ and test/CLASS/ (or val/CLASS/)."
        )
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise InputError(f"test_fraction must lie between 0 and 1, not {test_fraction}.")
    if test_fraction is None:
        return _fixed_trees(trees, (height, width))
    return _one_tree(trees.train, (height, width), test_fraction, seed)


@dataclass(frozen=True)
class _Trees:
    """Folders of the training, test and validation set; each holds one folder for each class."""

    train: Path
    test: Path | None = None
    validation: Path | None = None


def _trees(root: Path) -> _Trees:
    """Folders of the parts below `root`, by their names."""
    train = root / "train"
    if not _is_tree(train):
        parts = [name for name in ("test", *VALIDATION_NAMES) if _is_tree(root / name)]
        if parts:
            raise InputError(
                f"{root} has {parts[0]}/ and no train/ with class folders; put the training images "
                "in train/CLASS/."
            )
        return _Trees(root)
    test = root / "test" if _is_tree(root / "test") else None
    further = [root / name for name in VALIDATION_NAMES if _is_tree(root / name)]
    if len(further) > 1:
        names = " and ".join(folder.name for folder in further)
        raise InputError(f"{root} has {names}; leave one of them there, as validation set.")
    validation = further[0] if further else None
    return _Trees(train, validation) if test is None else _Trees(train, test, validation)


def _is_tree(folder: Path) -> bool:
    """Whether a folder is a part, without images of its own, and no class of that name."""
    return folder.is_dir() and not any(is_image(entry) for entry in folder.iterdir())


def _fixed_trees(trees: _Trees, size: tuple[int, int]) -> Source:
    assert trees.test is not None
    folders = _classes(trees.train)
    classes = list(folders)
    parts = [trees.test] if trees.validation is None else [trees.test, trees.validation]
    for part in parts:
        unknown = sorted(set(_classes(part)) - set(classes))
        if unknown:
            raise InputError(f"{part} has the class `{unknown[0]}`, which {trees.train} has not.")
    digest = hashlib.sha256(f"{size} train".encode())
    train = _decode(folders, classes, size, digest)
    digest.update(b"test")
    test = _decode(_classes(trees.test), classes, size, digest)
    held_out = None
    if trees.validation is not None:
        digest.update(b"validation")
        held_out = _decode(_classes(trees.validation), classes, size, digest)
    name = f"folder-{digest.hexdigest()[:12]}"
    source = fixed_source(name, train, test, tuple(classes), pixel_stats(train[0]))
    return source if held_out is None else _with_validation(source, *held_out)


def _with_validation(source: Source, images: Tensor, labels: Tensor) -> Source:
    """The source with further training samples, which it holds out for validation."""
    start = len(source.train_indices) + len(source.test_indices)
    indices = np.arange(start, start + len(labels), dtype=np.int64)
    both = {
        "image": torch.cat([source.train["image"], images]),
        "label": torch.cat([source.train["label"], labels]),
    }
    train_indices = np.concatenate([source.train_indices, indices])
    return replace(source, train=both, train_indices=train_indices, validation_indices=indices)


def _one_tree(root: Path, size: tuple[int, int], test_fraction: float, seed: int) -> Source:
    folders = _classes(root)
    classes = list(folders)
    digest = hashlib.sha256(str(size).encode())
    images, labels = _decode(folders, classes, size, digest)
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


def _classes(folder: Path) -> dict[str, Path]:
    """Class folders by their names in composed Unicode, sorted."""
    entries = [
        entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    ]
    classes = {normalize("NFC", entry.name): entry for entry in entries}
    if not classes:
        raise InputError(
            f"{folder} has no class folders; every class needs a folder of its images."
        )
    if len(classes) < len(entries):
        raise InputError(
            f"{folder} has two class folders whose names look the same and differ in Unicode only; "
            "put their images into one."
        )
    (single, *further) = entries
    inside = [entry.name for entry in single.iterdir() if entry.is_dir()]
    if not further and inside and not any(is_image(entry) for entry in single.iterdir()):
        raise InputError(
            f"{folder} holds the one folder {single.name}, which holds {', '.join(inside[:5])}; "
            f"move these one level up, or set the root one level deeper."
        )
    return dict(sorted(classes.items()))


def _decode(
    folders: dict[str, Path], classes: Sequence[str], size: tuple[int, int], digest: Any
) -> tuple[Tensor, Tensor]:
    """Images uint8 `[N, 3, H, W]` and labels `[N]`; classes without a folder have no samples."""
    images = []
    labels = []
    for label, name in enumerate(classes):
        if name not in folders:
            continue
        files = _images_below(folders[name])
        if not files:
            raise InputError(
                f"the class folder {folders[name]} holds no image; remove it or put images there."
            )
        for relative, file in files:
            raw = file.read_bytes()
            digest.update(f"{name}/{relative}/{len(raw)}".encode() + raw)
            images.append(_read_image(file, raw, size))
            labels.append(label)
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()), torch.tensor(labels)


def _images_below(folder: Path) -> list[tuple[str, Path]]:
    """Visible images at any depth below a folder, with their relative paths, sorted."""
    files = [
        (file.relative_to(folder), file)
        for file in folder.rglob("*")
        if is_image(file) and file.is_file()
    ]
    return [
        (relative.as_posix(), file)
        for relative, file in sorted(files)
        if not any(part.startswith(".") for part in relative.parts)
    ]


def _read_image(file: Path, raw: bytes, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    height, width = size
    picture = decode_image(raw, file)
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)
