"""Rows of files of questions: small files in memory, large ones in the cache."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mu.data import stored_rows
from mu.data.questions import InMemory, QuestionSet
from mu.data.stored_rows import Rows, StoredRows, row_text, store_rows, text_digest
from mu.utils.cache import content_hash
from tasks.text import files, tables
from tasks.text.files import EVALUATION_OFFSET, Row, check_row

LARGE = 4_000_000
"""Bytes of a file beyond which `auto` reads it into the cache."""


@dataclass(frozen=True, eq=False)
class QuestionRows:
    """Rows of several files, one after the other.

    Attributes:
        rows: the rows.
        counts: number of rows of each file.
    """

    rows: Rows
    counts: Sequence[int]

    @property
    def digest(self) -> str:
        """Hash of all questions and answers in their order, eight hexadecimal digits."""
        if isinstance(self.rows, StoredRows):
            return str(self.rows.file.facts["digest"])
        return text_digest(map(row_text, self.rows))


def read_questions(
    paths: Sequence[str],
    question: str = "question",
    answer: str = "answer",
    in_memory: InMemory = "auto",
    by: str | None = None,
) -> QuestionRows:
    """Rows of files with `question`, `answer` and their other columns.

    A file that was read into the cache once is not read again while its content is the same.

    Args:
        paths: files of `tasks.text.tables.read_table`.
        question: column of the questions.
        answer: column of the answers.
        in_memory: whether all rows are in memory; `auto` has them there where each file has at most
            4 MB.
        by: column whose values are read for all rows.

    Raises:
        InputError: when a file cannot be read, or a row has no question or no answer.
    """
    if in_memory is True or (
        in_memory == "auto" and all(file_size(Path(path)) <= LARGE for path in paths)
    ):
        parts = [list(_rows(path, question, answer)) for path in paths]
        return QuestionRows([row for part in parts for row in part], [len(p) for p in parts])
    hashes = [content_hash(Path(path)) for path in paths]
    # the kind of a file decides how it is read
    suffixes = [Path(path).suffix.lower() for path in paths]
    key = hashlib.sha256(
        json.dumps([hashes, suffixes, question, answer, reader_sources()]).encode()
    )
    rows = store_rows(
        key.hexdigest(),
        [_rows(path, question, answer) for path in paths],
        " and ".join(map(str, paths)),
        by,
    )
    return QuestionRows(rows, rows.file.facts["counts"])


def _rows(path: str, question: str, answer: str) -> Iterator[Row]:
    for index, row in enumerate(tables.iterate_table(path), 1):
        yield check_row(row, f"row {index} of {path}", question, answer)


def file_size(file: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 for nothing."""
    members = file.rglob("*") if file.is_dir() else [file]
    return sum(member.stat().st_size for member in members if member.is_file())


def reader_sources() -> list[str]:
    """Sources of the readers, so that other readers read files anew."""
    modules: list[Any] = [files, tables, stored_rows, sys.modules[__name__]]
    return [hashlib.sha256(inspect.getsource(module).encode()).hexdigest() for module in modules]


def evaluation_sets(
    paths: Mapping[str, str] | None,
    question: str = "question",
    answer: str = "answer",
    in_memory: InMemory = "auto",
) -> dict[str, QuestionSet]:
    """Question sets for evaluation only, by name, from one file each."""
    read = {
        name: read_questions([path], question, answer, in_memory).rows
        for name, path in (paths or {}).items()
    }
    return {
        name: QuestionSet(name, rows, EVALUATION_OFFSET * position + np.arange(len(rows)))
        for position, (name, rows) in enumerate(read.items(), 1)
    }
