"""Checksums in the table of a checkpoint file."""

from __future__ import annotations

import hashlib
import zipfile
from functools import lru_cache
from pathlib import Path


def checkpoint_digest(path: Path | str) -> str:
    """Hash of a checkpoint's contents, from the checksums in its table: 16 hexadecimal digits.

    No tensor is read, so it takes milliseconds for a file of any size. Of a folder of sharded
    weights it is the hash of its `meta.pt`, which holds the state of the fit. Empty where there is
    no such file.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path / "meta.pt" if path.is_dir() else path) as archive:
            entries = sorted((entry.CRC, entry.file_size) for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        return ""
    return hashlib.sha256(repr(entries).encode()).hexdigest()[:16]


def fits_checksums(path: Path | str) -> bool:
    """Whether the contents of a checkpoint file are those that its table of checksums is about.

    Torch does not look when it loads. The file is read once for each time that it was written.
    """
    entry = Path(path).stat()
    return _fits_checksums(str(Path(path).resolve()), entry.st_size, entry.st_mtime_ns)


@lru_cache(maxsize=64)
def _fits_checksums(path: str, size: int, written: int) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
