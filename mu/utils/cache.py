"""Cache folder: files that can be made again from their sources, shared by all runs of a user."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info

from mu.utils.errors import InputError
from mu.utils.files import write_json

_TICK = 20_000_000  # nanoseconds in which a file system may give two changes one time
_COARSE_TICK = 2_000_000_000  # the same, where times are whole seconds


def cache_folder(*parts: str) -> Path:
    """Folder below `$MU_CACHE`, else `$XDG_CACHE_HOME/mu`, else `~/.cache/mu`; it may not exist.

    >>> cache_folder("images").name
    'images'
    """
    root = os.environ.get("MU_CACHE")
    if not root:
        parent = os.environ.get("XDG_CACHE_HOME")
        root = str(Path(parent) / "mu" if parent else Path.home() / ".cache" / "mu")
    return Path(root).expanduser().joinpath(*parts)


def file_stats(status: os.stat_result) -> tuple[int, int, int]:
    """Bytes, time of modification and time of change of a file, times in nanoseconds."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def settled(changed: np.ndarray, begin: int) -> np.ndarray:
    """Whether files were unchanged long enough before they were read to be known by their times.

    A file system may give a second change the time of the first.

    Args:
        changed: last times of change, in nanoseconds.
        begin: when the reading began, in nanoseconds.

    >>> settled(np.array([1, 2_999_999_990]), begin=3_000_000_000).tolist()
    [True, False]
    """
    tick = np.where(changed % 1_000_000_000 == 0, _COARSE_TICK, _TICK)
    return abs(changed - begin) >= tick


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the files in a folder with their names; kept in the cache folder.

    A file that has its path, size and times of the last reading is not read again.

    Raises:
        InputError: when a file cannot be read.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        named = [[file.relative_to(path).as_posix(), content_hash(file)] for file in files]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()
    key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    entry = cache_folder("hashes", f"{key}.json")
    begin = time.time_ns()
    try:
        with path.open("rb") as opened:
            stats = list(file_stats(os.fstat(opened.fileno())))
            with suppress(OSError, ValueError, KeyError, TypeError):
                stored = json.loads(entry.read_text())
                if stored["stats"] == stats:
                    return str(stored["hash"])
            sha = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    if settled(np.array(max(stats[1:])), begin):
        with suppress(OSError):  # without it, the file is read at the next start again
            write_json(entry, {"stats": stats, "hash": sha})
    return sha


@contextmanager
def locked(entry: Path, work: str) -> Iterator[None]:
    """Exclusive lock of a cache entry among processes; the lock of a killed one is free at once.

    Args:
        entry: path of the entry; the lock is the file beside it with the suffix `.lock`.
        work: what the other process does meanwhile, for the message (`reads data/images`).

    Raises:
        InputError: when the folder cannot be written.
    """
    with writable(entry):
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{entry}.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            rank_zero_info(f"Another process {work}; waiting for it.")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writable(entry: Path) -> Iterator[None]:
    """Context that names the cache folder and the cure when a file there cannot be written.

    Raises:
        InputError: in place of an OSError (a full disc, a folder without permission).
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the cache {entry.parent} cannot be written ({error.strerror or error}); free space "
            "there, or set the environment variable MU_CACHE to a folder of another disc."
        ) from error
