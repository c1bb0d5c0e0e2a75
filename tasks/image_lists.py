"""Lists of image files by class, as arrays: a million files are few objects and little memory."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from mu.data.image_files import is_image
from mu.utils.cache import file_stats
from mu.utils.errors import InputError
from mu.utils.progress import progress_bar

T = TypeVar("T")
_BLOCK = 512  # files between two updates of a progress bar


@dataclass(frozen=True, eq=False)
class ImageList:
    """Image files below class folders.

    Attributes:
        folders: class folders.
        folder: `[N]` int32, position of each file's class folder.
        labels: `[N]` int64, class numbers.
        names: uint8, paths below the class folders as bytes, one after the other.
        ends: `[N]` int64, where each name ends.
        stats: `[N, 3]` int64: bytes, time of modification and time of change in nanoseconds.
    """

    folders: tuple[str, ...]
    folder: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    ends: np.ndarray
    stats: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, position: int) -> str:
        """Path of a file below its class folder."""
        start = self.ends[position - 1] if position else 0
        return os.fsdecode(self.names[start : self.ends[position]].tobytes())

    def path(self, position: int) -> str:
        """Path of a file."""
        return os.path.join(self.folders[self.folder[position]], self.name(position))

    def read(self, position: int) -> bytes:
        """Content of a file.

        Raises:
            InputError: when it cannot be read, or is not the file that was listed.
        """
        path = self.path(position)
        try:
            with open(path, "rb", buffering=0) as opened:
                unchanged = file_stats(os.fstat(opened.fileno())) == tuple(self.stats[position])
                content = opened.readall()
        except OSError as error:
            raise InputError(f"the image {path} cannot be read ({error.strerror}).") from error
        if not unchanged:
            raise InputError(
                f"the image {path} was changed after the task had listed it; start again, so that "
                "all is read from the same files."
            )
        return content

    @cached_property
    def listing_hash(self) -> str:
        """Hash of all paths, 64 hexadecimal digits."""
        sha = hashlib.sha256(json.dumps(self.folders).encode())
        for array in (self.folder, self.names, self.ends):
            sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()

    @classmethod
    def joined(cls, lists: Sequence[ImageList]) -> ImageList:
        """Several lists, one after the other."""
        folder_starts = np.cumsum([0, *(len(files.folders) for files in lists)])
        name_starts = np.cumsum([0, *(len(files.names) for files in lists)])
        return cls(
            tuple(folder for files in lists for folder in files.folders),
            np.concatenate(
                [files.folder + np.int32(folder_starts[row]) for row, files in enumerate(lists)]
            ),
            np.concatenate([files.labels for files in lists]),
            np.concatenate([files.names for files in lists]),
            np.concatenate([files.ends + name_starts[row] for row, files in enumerate(lists)]),
            np.concatenate([files.stats for files in lists]),
        )


def list_images(folders: Mapping[str, Path], classes: Sequence[str]) -> ImageList:
    """Images at any depth below the class folders, sorted within each class.

    Args:
        folders: folder of each class.
        classes: names of all classes; those without a folder have no images.

    Raises:
        InputError: when a class folder holds no image.
    """
    lists = []
    for label, name in enumerate(classes):
        if name not in folders:
            continue
        files = _class_list(folders[name], label)
        if not len(files):
            raise InputError(
                f"the class folder {folders[name]} holds no image; remove it or put images there."
            )
        lists.append(files)
    return ImageList.joined(lists)


def _class_list(folder: Path, label: int) -> ImageList:
    files = sorted(_walk(os.path.abspath(folder), ()), key=lambda entry: entry[0])
    names = [os.fsencode("/".join(parts)) for parts, _ in files]
    return ImageList(
        (os.path.abspath(folder),),
        np.zeros(len(files), dtype=np.int32),
        np.full(len(files), label, dtype=np.int64),
        np.frombuffer(b"".join(names), dtype=np.uint8),
        np.cumsum([len(name) for name in names], dtype=np.int64),
        np.array([stats for _, stats in files], dtype=np.int64).reshape(-1, 3),
    )


def _walk(
    folder: str, above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], tuple[int, int, int]]]:
    """Visible image files with the parts of their paths and their stats; no linked folders."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            parts = (*above, entry.name)
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, parts)
            elif is_image(Path(entry.name)):
                try:
                    status = entry.stat()
                except OSError:  # a link to nothing, or to itself
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield parts, file_stats(status)


def map_files(
    work: Callable[[int], T], positions: Sequence[int] | np.ndarray, title: str | None = None
) -> Iterator[tuple[int, T]]:
    """Positions with the results of `work`, in threads where torch has several.

    Decoding, resizing and hashing release Python's lock, so threads share the work.

    Args:
        work: reads the file at a position.
        positions: positions of the files.
        title: text of a progress bar; None for no bar.
    """
    threads = min(torch.get_num_threads(), len(positions))
    blocks = [positions[start : start + _BLOCK] for start in range(0, len(positions), _BLOCK)]
    counted = blocks if title is None else progress_bar(blocks, title, unit_scale=_BLOCK)
    if threads <= 1:
        for block in counted:
            yield from ((int(position), work(int(position))) for position in block)
        return
    with ThreadPoolExecutor(threads) as executor:
        for block in counted:
            rows = [int(position) for position in block]
            yield from zip(rows, executor.map(work, rows), strict=True)
