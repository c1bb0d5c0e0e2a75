"""Index of image files in the cache folder: hashes and pixel sums, so that each is read once."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from mu.data.image_files import decode_pixels
from mu.utils.cache import cache_folder, locked, settled, writable
from mu.utils.errors import InputError
from mu.utils.files import replacing
from tasks.image_lists import ImageList, map_files

_FORMAT = 1  # of the index file
_SECONDS = 60  # between two writings of an unfinished index


@dataclass(frozen=True, eq=False)
class Examined:
    """What is known of the files of an ImageList.

    Attributes:
        digests: `[N, 32]` uint8, SHA-256 of the contents.
        sums: `[N, 6]` int64, sums of the levels of each channel, and of their squares.
        stats: `[N, 3]` int64, of the files when they were read; −1 where they were not.
    """

    digests: np.ndarray
    sums: np.ndarray
    stats: np.ndarray

    @classmethod
    def empty(cls, count: int) -> Examined:
        """Nothing known of `count` files."""
        return cls(
            np.zeros((count, 32), dtype=np.uint8),
            np.zeros((count, 6), dtype=np.int64),
            np.full((count, 3), -1, dtype=np.int64),
        )

    def unread(self, files: ImageList) -> np.ndarray:
        """Positions of the files that were not read, or have changed since."""
        return np.flatnonzero((self.stats != files.stats).any(1))


def examine(files: ImageList, size: tuple[int, int], root: Path) -> Examined:
    """Hashes and pixel sums of image files; only those that are new or changed are read.

    A file is known by its path, its size and its times of modification and change. The index is
    written once a minute while files are read, so that a killed process loses a minute.

    Args:
        files: the files.
        size: `(height, width)` to which they are resized.
        root: folder that names the index.

    Raises:
        InputError: when an image cannot be read.
    """
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    entry = cache_folder("images", f"{name}-{size[0]}x{size[1]}.npz")
    examined = _load(entry, files)
    if not len(examined.unread(files)):
        return examined
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(entry, f"reads the images of {root}"))
        except InputError as error:
            _warn(root, error)
        # another process may have read the files meanwhile
        examined = _load(entry, files)
        unread = examined.unread(files)
        begin = time.time_ns()
        saved = time.monotonic()

        def work(position: int) -> tuple[bytes, np.ndarray]:
            raw = files.read(position)
            pixels = decode_pixels(raw, files.path(position), size)
            return hashlib.sha256(raw).digest(), pixel_sums(pixels)

        for position, (digest, sums) in map_files(work, unread, f"Reading the images of {root}"):
            examined.digests[position] = np.frombuffer(digest, dtype=np.uint8)
            examined.sums[position] = sums
            examined.stats[position] = files.stats[position]
            if time.monotonic() - saved > _SECONDS:
                _save(entry, files, examined, begin)
                saved = time.monotonic()
        if len(unread):
            try:
                _save(entry, files, examined, begin)
            except InputError as error:
                _warn(root, error)
    return examined


def pixel_sums(pixels: np.ndarray) -> np.ndarray:
    """Sums of the levels of each channel, and of their squares, `[6]` int64.

    >>> pixel_sums(np.array([[[1, 2, 3], [4, 0, 0]]], dtype=np.uint8)).tolist()
    [5, 2, 3, 17, 4, 9]
    """
    from PIL import Image

    counts = np.array(Image.fromarray(pixels).histogram()).reshape(3, 256)
    return np.concatenate([counts @ np.arange(256), counts @ np.arange(256) ** 2])


def _warn(root: Path, error: InputError) -> None:
    rank_zero_warn(f"All images of {root} are read again at the next start: {error}")


def _load(entry: Path, files: ImageList) -> Examined:
    """What the index knows of these files."""
    examined = Examined.empty(len(files))
    try:
        with np.load(entry, allow_pickle=False) as arrays:
            index = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # absent, or cut off
        return examined
    if int(index.get("format", -1)) != _FORMAT:
        return examined
    if str(index["listing"]) == files.listing_hash:
        rows = positions = np.arange(len(files))
    else:
        rows, positions = _matched(index, files)
    for name in ("digests", "sums", "stats"):
        getattr(examined, name)[positions] = index[name][rows]
    return examined


def _matched(index: dict[str, np.ndarray], files: ImageList) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the index and positions in `files` that have the same path."""
    indexed = ImageList(
        tuple(json.loads(str(index["folders"]))),
        index["folder"],
        np.empty(0, dtype=np.int64),
        index["names"],
        index["ends"],
        index["stats"],
    )
    row_of = {indexed.path(row): row for row in range(len(indexed))}
    pairs = [
        (row, position)
        for position in range(len(files))
        if (row := row_of.get(files.path(position))) is not None
    ]
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _save(entry: Path, files: ImageList, examined: Examined, begin: int) -> None:
    """Write the index; a file that was changed just before it was read is not trusted in it.

    Args:
        entry: the index.
        files: the files.
        examined: what is known of them.
        begin: when the reading began, in nanoseconds.
    """
    trusted = settled(examined.stats[:, 1:].max(1, initial=0), begin)
    stats = np.where(trusted[:, None], examined.stats, -1)
    with writable(entry), replacing(entry) as temporary, temporary.open("wb") as opened:
        np.savez(
            opened,
            format=np.int64(_FORMAT),
            listing=np.str_(files.listing_hash),
            folders=np.str_(json.dumps(files.folders)),
            folder=files.folder,
            names=files.names,
            ends=files.ends,
            digests=examined.digests,
            sums=examined.sums,
            stats=stats,
        )
