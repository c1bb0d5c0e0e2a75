"""Parallel map of a function over chunks and ranks, cached on disk and resumable.

The chunks must not depend on ranks, and a result must be a pure function of the chunk's index and
of the job's key; then the results are the same on any number of ranks and after any interruption.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from mu.utils.files import save_tensors
from mu.utils.progress import progress_bar

T = TypeVar("T")
Chunk = Mapping[str, Tensor]
"""Result of one chunk: tensors on the CPU."""
FLUSH = 5.0
"""Seconds of work that an interruption may cost."""


@dataclass(frozen=True)
class Ranks:
    """Group of processes that share the chunks.

    Attributes:
        rank: this process.
        world: number of processes.
        lockstep: every process must compute every chunk, because a forward pass gathers weights
            from all (FSDP).
    """

    rank: int = 0
    world: int = 1
    lockstep: bool = False

    def gather(self, local: T) -> list[T]:
        """Values of all ranks, in the order of ranks."""
        if self.world == 1:
            return [local]
        values: list[T | None] = [None] * self.world
        torch.distributed.all_gather_object(values, local)
        return values  # type: ignore[return-value]


def map_chunks(
    count: int,
    work: Callable[[int], Chunk],
    *,
    key: str = "",
    folder: Path | None = None,
    ranks: Ranks | None = None,
    what: str = "",
) -> list[Chunk]:
    """Results of all chunks, on every rank.

    Args:
        count: number of chunks, indexed from 0.
        work: computes the result of a chunk from its index.
        key: hash of everything that the results depend on; part of file names.
        folder: cache folder: `KEY.safetensors` when complete, parts of it in `KEY/` before; None
            writes no files.
        ranks: processes that share the work; this process alone when None.
        what: label of the progress bar.
    """
    ranks = ranks or Ranks()
    cached = _read(folder, key) if folder is not None else {}
    cached_by_rank = ranks.gather(sorted(cached))
    done = {index for indices in cached_by_rank for index in indices if index < count}
    todo = [index for index in range(count) if index not in done]
    assigned = todo if ranks.lockstep else todo[ranks.rank :: ranks.world]
    computed = _compute(
        assigned,
        work,
        folder if ranks.rank == 0 or not ranks.lockstep else None,
        key,
        what,
        show_progress=ranks.rank == 0,
    )
    # a result on disk is sent by the lowest rank that has it
    sent_from_disk = {
        index: cached[index]
        for index in sorted(cached)
        if index in done and not any(index in indices for indices in cached_by_rank[: ranks.rank])
    }
    local = {**sent_from_disk, **({} if ranks.lockstep else computed)}
    results = {index: chunk for part in ranks.gather(local) for index, chunk in part.items()}
    if ranks.lockstep:
        results.update(computed)
    if folder is not None and ranks.rank == 0 and todo:
        _finish(folder, key, results)
    return [results[index] for index in range(count)]


def _compute(
    indices: list[int],
    work: Callable[[int], Chunk],
    folder: Path | None,
    key: str,
    what: str,
    show_progress: bool,
) -> dict[int, Chunk]:
    """Results of this rank's chunks, written every few seconds."""
    computed: dict[int, Chunk] = {}
    waiting: list[int] = []
    since = time.monotonic()
    try:
        for index in progress_bar(indices, what, disable=not show_progress):
            computed[index] = work(index)
            waiting.append(index)
            if folder is not None and time.monotonic() - since > FLUSH:
                _write(
                    folder / key / f"{waiting[0]}.safetensors", {i: computed[i] for i in waiting}
                )
                waiting = []
                since = time.monotonic()
    except BaseException:  # finished chunks are saved after any interruption
        if folder is not None and waiting:
            _write(folder / key / f"{waiting[0]}.safetensors", {i: computed[i] for i in waiting})
        raise
    return computed


def _finish(folder: Path, key: str, results: Mapping[int, Chunk]) -> None:
    """Merge the parts into one file."""
    _write(folder / f"{key}.safetensors", results)
    parts = folder / key
    if parts.is_dir():
        for file in parts.glob("*.safetensors"):
            file.unlink(missing_ok=True)
        if not any(parts.iterdir()):
            parts.rmdir()


def _write(file: Path, results: Mapping[int, Chunk]) -> None:
    save_tensors(
        file,
        {
            f"{index}/{name}": value
            for index, chunk in results.items()
            for name, value in chunk.items()
        },
    )


def _read(folder: Path, key: str) -> dict[int, Chunk]:
    """Cached results of a job; a file that cannot be read is skipped."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    results: dict[int, dict[str, Tensor]] = {}
    for file in [folder / f"{key}.safetensors", *sorted((folder / key).glob("*.safetensors"))]:
        try:
            tensors = load_file(file) if file.is_file() else {}
        except (
            SafetensorError,
            OSError,
        ):
            # a damaged or removed file: its chunks are computed again
            continue
        for name, value in tensors.items():
            index, _, field = name.partition("/")
            results.setdefault(int(index), {})[field] = value
    return dict(results)


def pack_strings(texts: Sequence[str]) -> Chunk:
    """Strings as tensors, for a file of tensors."""
    raw = [text.encode("utf-8") for text in texts]
    return {
        "bytes": torch.tensor(list(b"".join(raw)), dtype=torch.uint8),
        "length": torch.tensor([len(text_bytes) for text_bytes in raw]),
    }


def unpack_strings(chunk: Chunk) -> list[str]:
    """Strings from the tensors of `pack_strings`."""
    raw = bytes(chunk["bytes"].tolist())
    ends = chunk["length"].cumsum(0).tolist()
    return [
        raw[end - length : end].decode("utf-8")
        for end, length in zip(ends, chunk["length"].tolist(), strict=True)
    ]
