"""Work in numbered pieces: dealt to ranks, kept on disk as it goes, and not done again after an
interruption.

What a piece is must not depend on ranks, and its result must be a pure function of its number and
of the job's key; then the whole is the same on any number of ranks and after any interruption.
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
"""The result of one piece: tensors on the CPU."""
FLUSH = 5.0
"""Seconds of work that an interruption may cost."""


@dataclass(frozen=True)
class Ranks:
    """Who works.

    Attributes:
        rank: this process.
        world: number of processes.
        lockstep: every process must do every piece, because a forward pass gathers weights from all
            (FSDP).
    """

    rank: int = 0
    world: int = 1
    lockstep: bool = False

    def gathered(self, mine: T) -> list[T]:
        """What each rank has, in the order of the ranks."""
        if self.world == 1:
            return [mine]
        found: list[T | None] = [None] * self.world
        torch.distributed.all_gather_object(found, mine)
        return found  # type: ignore[return-value]


def map_chunks(
    count: int,
    work: Callable[[int], Chunk],
    *,
    key: str = "",
    folder: Path | None = None,
    ranks: Ranks | None = None,
    what: str = "",
) -> list[Chunk]:
    """The results of all pieces, on every rank.

    Args:
        count: pieces are numbered from 0.
        work: makes the result of a piece.
        key: stands for everything that the results depend on; a part of file names.
        folder: where results are kept, `KEY.safetensors` when all are there, parts of it in `KEY/`
            before; None keeps nothing.
        ranks: who works; this process alone when None.
        what: for the progress bar.
    """
    ranks = ranks or Ranks()
    kept = _read(folder, key) if folder is not None else {}
    known = ranks.gathered(sorted(kept))
    done = {number for numbers in known for number in numbers if number < count}
    todo = [number for number in range(count) if number not in done]
    mine = todo if ranks.lockstep else todo[ranks.rank :: ranks.world]
    made = _made(
        mine,
        work,
        folder if ranks.rank == 0 or not ranks.lockstep else None,
        key,
        what,
        shown=ranks.rank == 0,
    )
    # of what is on disk, the lowest rank that has it tells the others
    told_by_me = {
        number: kept[number]
        for number in sorted(kept)
        if number in done and not any(number in numbers for numbers in known[: ranks.rank])
    }
    own = {**told_by_me, **({} if ranks.lockstep else made)}
    every = {number: piece for part in ranks.gathered(own) for number, piece in part.items()}
    if ranks.lockstep:
        every.update(made)
    if folder is not None and ranks.rank == 0 and todo:
        _finish(folder, key, every)
    return [every[number] for number in range(count)]


def _made(
    numbers: list[int],
    work: Callable[[int], Chunk],
    folder: Path | None,
    key: str,
    what: str,
    shown: bool,
) -> dict[int, Chunk]:
    """This rank's pieces, written every few seconds."""
    made: dict[int, Chunk] = {}
    waiting: list[int] = []
    since = time.monotonic()
    try:
        for number in progress_bar(numbers, what, disable=not shown):
            made[number] = work(number)
            waiting.append(number)
            if folder is not None and time.monotonic() - since > FLUSH:
                _write(
                    folder / key / f"{waiting[0]}.safetensors", {one: made[one] for one in waiting}
                )
                waiting = []
                since = time.monotonic()
    except BaseException:  # whatever stops the work, what is done is done
        if folder is not None and waiting:
            _write(folder / key / f"{waiting[0]}.safetensors", {one: made[one] for one in waiting})
        raise
    return made


def _finish(folder: Path, key: str, every: Mapping[int, Chunk]) -> None:
    """One file in place of the parts."""
    _write(folder / f"{key}.safetensors", every)
    parts = folder / key
    if parts.is_dir():
        for file in parts.glob("*.safetensors"):
            file.unlink(missing_ok=True)
        if not any(parts.iterdir()):
            parts.rmdir()


def _write(file: Path, found: Mapping[int, Chunk]) -> None:
    save_tensors(
        file,
        {
            f"{number}/{name}": value
            for number, piece in found.items()
            for name, value in piece.items()
        },
    )


def _read(folder: Path, key: str) -> dict[int, Chunk]:
    """Everything that is kept of a job; a file that cannot be read is as good as none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found: dict[int, dict[str, Tensor]] = {}
    for file in [folder / f"{key}.safetensors", *sorted((folder / key).glob("*.safetensors"))]:
        try:
            tensors = load_file(file) if file.is_file() else {}
        except (
            SafetensorError,
            OSError,
        ):
            # damaged, or gone since it was listed: its pieces are made again
            continue
        for name, value in tensors.items():
            number, _, field = name.partition("/")
            found.setdefault(int(number), {})[field] = value
    return dict(found)


def packed(texts: Sequence[str]) -> Chunk:
    """Strings as tensors, for a file of tensors."""
    raw = [text.encode("utf-8") for text in texts]
    return {
        "bytes": torch.tensor(list(b"".join(raw)), dtype=torch.uint8),
        "length": torch.tensor([len(one) for one in raw]),
    }


def unpacked(piece: Chunk) -> list[str]:
    """What `packed` was given."""
    raw = bytes(piece["bytes"].tolist())
    ends = piece["length"].cumsum(0).tolist()
    return [
        raw[end - length : end].decode("utf-8")
        for end, length in zip(ends, piece["length"].tolist(), strict=True)
    ]
