"""Rows of questions and answers in a memory-mapped Arrow file, read one at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload
from unicodedata import normalize

import numpy as np

from mu.data.arrow_files import ArrowFile, cached_table
from mu.utils.cache import cache_folder

_SCHEMA = {
    "question": "string",
    "answer": "string",
    "row": "string",
    "by": "string",
    "system_message": "string",
    "content": "hash",
    "overlap": "hash",
}


def row_text(row: Mapping[str, Any]) -> str:
    """Question and answer as one text, for comparisons."""
    return f"{row['question']}\n{row['answer']}"


class TextDigest:
    """Hash of texts (or token ids) in their order, added one by one."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, text: Any) -> None:
        """Add a text."""
        self._sha.update(json.dumps(text).encode() + b"\n")

    @property
    def value(self) -> str:
        """Eight hexadecimal digits."""
        return self._sha.hexdigest()[:8]


def text_digest(texts: Iterable[Any]) -> str:
    """Hash of texts (or token ids) in their order, eight hexadecimal digits."""
    digest = TextDigest()
    for text in texts:
        digest.add(text)
    return digest.value


def compared_text(text: str) -> str:
    """Form of a text in which equal samples are found: one kind of white space, Unicode's NFC."""
    return " ".join(normalize("NFC", text).split())


def text_key(text: str) -> bytes:
    """Hash of a text, 16 bytes."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def content_key(row: Mapping[str, Any]) -> bytes:
    """Hash of question and answer, 16 bytes."""
    return text_key(json.dumps([row["question"], row["answer"]]))


class StoredRows(Sequence[Mapping[str, Any]]):
    """Rows of a set of questions in the cache, as mappings that are read on demand.

    Args:
        file: table of `store_rows`.
        positions: `[N]`, rows of the table; all when None.
    """

    def __init__(self, file: ArrowFile, positions: np.ndarray | None = None) -> None:
        self.file = file
        self.positions = np.arange(len(file)) if positions is None else positions

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, position: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, position: slice) -> Sequence[Mapping[str, Any]]: ...

    def __getitem__(self, position: int | slice) -> Any:
        if isinstance(position, slice):
            return self.take(range(len(self))[position])
        return json.loads(self.file.text("row", int(self.positions[position])))

    def take(self, positions: Sequence[int] | np.ndarray) -> StoredRows:
        """The rows at these positions."""
        return StoredRows(self.file, self.positions[np.asarray(positions, dtype=np.int64)])

    def column(self, name: str) -> StoredColumn:
        """Column of texts: `question`, `answer`, `by` (as JSON) or `system_message` (or null)."""
        return StoredColumn(self.file, name, self.positions)

    def keys(self, name: str) -> np.ndarray:
        """Hashes of the rows, `[N, 16]` uint8: of `content`, or of texts compared for `overlap`."""
        return self.file.fixed(name)[self.positions]


class StoredColumn(Sequence[str]):
    """Texts of a column, read on demand.

    Args:
        file: the table.
        name: the column.
        positions: `[N]`, rows of the table.
    """

    def __init__(self, file: ArrowFile, name: str, positions: np.ndarray) -> None:
        self.file = file
        self.name = name
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, position: int) -> str: ...

    @overload
    def __getitem__(self, position: slice) -> Sequence[str]: ...

    def __getitem__(self, position: int | slice) -> Any:
        if isinstance(position, slice):
            return [self[row] for row in range(len(self))[position]]
        return self.file.text(self.name, int(self.positions[position]))

    def coded(self) -> tuple[list[Any], np.ndarray]:
        """Distinct values, and the position of each row's value in them, `[N]`."""
        return self.file.coded(self.name, self.positions)


Rows = Sequence[Mapping[str, Any]]
"""Rows in memory or in the cache."""


def take_rows(rows: Rows, positions: Iterable[int]) -> Rows:
    """The rows at these positions, in memory or in the cache as the others are."""
    if isinstance(rows, StoredRows):
        return rows.take(np.fromiter(positions, dtype=np.int64))
    return [rows[int(position)] for position in positions]


def store_rows(
    key: str, parts: Sequence[Iterable[Mapping[str, Any]]], title: str, by: str | None = None
) -> StoredRows:
    """Rows in the cache, written there first if they are not.

    The facts of the file are `counts`, the rows of each part, and `digest`, the hash of all texts.

    Args:
        key: hash of the content and of all that decides the rows.
        parts: rows of each part, read only to be written.
        title: names the rows, for the message to processes that wait.
        by: column whose values are read for all rows.
    """

    def make(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
        counts = [0] * len(parts)
        digest = TextDigest()
        for part, rows in enumerate(parts):
            for row in rows:
                counts[part] += 1
                text = row_text(row)
                digest.add(text)
                yield {
                    "question": row["question"],
                    "answer": row["answer"],
                    "row": json.dumps(row, default=str),
                    "by": None if by is None else json.dumps(row.get(by), default=str),
                    "system_message": row.get("system_message"),
                    "content": content_key(row),
                    "overlap": text_key(compared_text(text)),
                }
        facts |= {"counts": counts, "digest": digest.value}

    name = hashlib.sha256(json.dumps([key, by]).encode()).hexdigest()[:24]
    path: Path = cache_folder("texts", f"rows-{name}")
    return StoredRows(cached_table(path, _SCHEMA, make, f"reads {title}"))
