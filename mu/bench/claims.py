"""Claims of runs, so that no two processes work on one run folder at the same time."""

from __future__ import annotations

from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from mu.utils.distributed import rank_of_process

FOLDER = ".claims"
"""Folder of the claims inside a study's folder."""


def claim(output: Path, name: str, wait: bool = False) -> BaseFileLock | None:
    """Claim of a run: a lock that its process holds, and that the system frees when it ends.

    A process that is killed loses its claim, so nothing has to be recovered by hand. Folders shared
    by several machines need a file system with working `flock` (NFS 4, Lustre with `-o flock`).

    Args:
        output: the study's folder.
        name: name of the run, without slashes.
        wait: wait until the process that holds the claim has ended.

    Returns:
        The lock, to be released; None where another process holds it. A further rank of a run does
        not claim what rank zero has claimed: its lock is another file.
    """
    rank = rank_of_process()
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / (f"{name}.rank{rank}.lock" if rank else f"{name}.lock")
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        return None
    return lock
