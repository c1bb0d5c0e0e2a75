"""Reader of image folders by class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import torch

from mu.data.image_files import is_image
from mu.utils.errors import InputError
from tasks.image_files import ImageFiles, decode_files
from tasks.image_index import examine
from tasks.image_lists import ImageList, list_images
from tasks.selectors import draw, portion
from tasks.tensor_data import Field, Source, pixel_stats, stats_of_sums

InMemory = bool | Literal["auto"]
"""Whether all images are decoded at the start."""
LIMIT = 1_000_000_000
"""Bytes of decoded images up to which `auto` decodes them all at the start."""
VALIDATION_NAMES = ("val", "valid", "validation")
"""Names of the folder that is the validation set beside `test`, and the test set without it."""


def image_folder_source(
    root: str | Path,
    size: int | tuple[int, int],
    test_fraction: float | None = None,
    seed: int = 0,
    in_memory: InMemory = "auto",
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
        in_memory: whether all images are decoded now, or each when it is read; `auto` decodes those
            now that take at most 1 GB. Samples and hash are the same. Of images that are decoded
            when they are read, an index in the cache folder (`mu.utils.cache`) holds hashes and
            sums, so that only new and changed files are read at the next start.

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
    classes, parts = _listed(trees)
    rows = _part_rows(parts, test_fraction, seed, trees.train)
    return _source(root, classes, parts, rows, (height, width), in_memory)


def _part_rows(
    parts: Mapping[str, ImageList], test_fraction: float | None, seed: int, root: Path
) -> dict[str, np.ndarray]:
    """Rows of each part among the files of all parts, one after the other."""
    if test_fraction is not None:
        train, test = _drawn_test(parts["train"].labels, test_fraction, seed, root)
        return {"train": train, "test": test}
    ends = np.cumsum([0, *(len(files) for files in parts.values())])
    return {
        name: np.arange(start, end, dtype=np.int64)
        for name, start, end in zip(parts, ends, ends[1:], strict=False)
    }


def _source(
    root: Path,
    classes: list[str],
    parts: Mapping[str, ImageList],
    rows: Mapping[str, np.ndarray],
    size: tuple[int, int],
    in_memory: InMemory,
) -> Source:
    """Source of the files, whose rows are the stable indices."""
    files = ImageList.joined(list(parts.values()))
    validation = rows.get("validation", np.empty(0, dtype=np.int64))
    training = np.concatenate([rows["train"], validation])
    part_rows = {"train": training, "test": rows["test"]}
    if in_memory is True or (in_memory == "auto" and len(files) * 3 * size[0] * size[1] <= LIMIT):
        # all now; each part in a tensor of its own, so that no pixel is held twice
        digests = np.empty((len(files), 32), dtype=np.uint8)
        images: dict[str, Field] = {}
        for name, positions in part_rows.items():
            read = np.empty((len(positions), 32), dtype=np.uint8)
            title = f"Reading the images of {root}"
            images[name] = decode_files(files, positions, size, title, read)
            digests[positions] = read
        stats = pixel_stats(images["train"][: len(rows["train"])])  # type: ignore[index]
    else:
        # each when it is read; the index knows what they are
        examined = examine(files, size, root)
        digests = examined.digests
        images = {name: ImageFiles(files, size, positions) for name, positions in part_rows.items()}
        sums = examined.sums[rows["train"]].sum(0).tolist()
        stats = stats_of_sums(sums[:3], sums[3:], len(rows["train"]) * size[0] * size[1])
    labels = {
        name: torch.from_numpy(files.labels[positions]) for name, positions in part_rows.items()
    }
    return Source(
        f"folder-{_content_hash(classes, parts, digests, size)}",
        {"image": images["train"], "label": labels["train"]},
        {"image": images["test"], "label": labels["test"]},
        training,
        rows["test"],
        num_classes=len(classes),
        class_names=tuple(classes),
        mean=stats[0],
        std=stats[1],
        input_size=(3, *size),
        validation_indices=validation,
    )


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


def _listed(trees: _Trees) -> tuple[list[str], dict[str, ImageList]]:
    """Classes, and the images of each part."""
    folders = _classes(trees.train)
    classes = list(folders)
    parts = {"train": folders}
    for name, part in (("test", trees.test), ("validation", trees.validation)):
        if part is None:
            continue
        parts[name] = _classes(part)
        unknown = sorted(set(parts[name]) - set(classes))
        if unknown:
            raise InputError(f"{part} has the class `{unknown[0]}`, which {trees.train} has not.")
    return classes, {name: list_images(folders, classes) for name, folders in parts.items()}


def _drawn_test(
    labels: np.ndarray, test_fraction: float, seed: int, root: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one tree for training, and a share of each class for the test set."""
    rows = np.arange(len(labels), dtype=np.int64)
    members = [rows[labels == label] for label in np.unique(labels)]
    test = np.sort(
        np.concatenate([draw(m, portion(len(m), test_fraction), seed, "test") for m in members])
    )
    train = np.setdiff1d(rows, test)
    empty_classes = np.setdiff1d(labels, labels[train])
    if not len(test) or len(empty_classes):
        problem = "a class without training images" if len(empty_classes) else "no test image"
        raise InputError(
            f"test_fraction {test_fraction} leaves {problem}; {root} has {len(rows)} images in "
            f"{len(members)} classes."
        )
    return train, test


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


def _content_hash(
    classes: Sequence[str], parts: Mapping[str, ImageList], digests: np.ndarray, size: object
) -> str:
    """Hash of sizes, classes, names and contents of all files, 12 hexadecimal digits."""
    lengths = {name: len(files) for name, files in parts.items()}
    sha = hashlib.sha256(json.dumps([str(size), list(classes), lengths]).encode())
    for files in parts.values():
        for array in (files.labels, files.names, files.ends):
            sha.update(np.ascontiguousarray(array).data)
    sha.update(np.ascontiguousarray(digests).data)
    return sha.hexdigest()[:12]
