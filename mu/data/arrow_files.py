"""Memory-mapped Arrow files: tables that take no memory for a row.

A file has the stream format of Arrow, so `datasets.Dataset.from_file` opens it too. Beside it
stands a JSON file with facts about it, which is written last: a table without it is not complete.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mu.utils.cache import locked, writable
from mu.utils.errors import InputError
from mu.utils.extras import require
from mu.utils.files import read_json, replacing, write_json

_BATCH = 2_000
"""Rows of a record batch."""
_INT = np.dtype(np.int32)
Row = Mapping[str, Any]


class ArrowFile:
    """Table in a memory-mapped file; a copy in another process opens the file anew.

    Args:
        path: the file.
        facts: plain data about the table.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path = path
        self.facts = dict(facts)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "facts": self.facts}

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def table(self) -> Any:
        """The memory-mapped `pyarrow.Table`."""
        import pyarrow
        import pyarrow.ipc

        try:
            return pyarrow.ipc.open_stream(pyarrow.memory_map(str(self.path))).read_all()
        except (OSError, pyarrow.ArrowException) as error:
            raise InputError(
                f"the cache file {self.path} cannot be read ({error}); delete it, and it is made "
                "again."
            ) from error

    @cached_property
    def _starts(self) -> list[int]:
        """First row of each record batch."""
        lengths = [len(chunk) for chunk in self.table.column(0).chunks]
        return [0, *itertools.accumulate(lengths)]

    def locate(self, row: int) -> tuple[int, int]:
        """Record batch of a row, and the row's position in it."""
        chunk = bisect.bisect_right(self._starts, row) - 1
        return chunk, row - self._starts[chunk]

    def text(self, column: str, row: int) -> Any:
        """Value of a column of texts."""
        chunk, position = self.locate(row)
        return self.table.column(column).chunk(chunk)[position].as_py()

    def coded(self, column: str, rows: np.ndarray) -> tuple[list[Any], np.ndarray]:
        """Distinct values of a column of texts, and the position of each row's value in them.

        Args:
            column: name of the column; null is a value.
            rows: `[N]` int64.
        """
        code_of: dict[Any, int] = {}
        codes = [np.empty(0, dtype=np.int64)]
        for chunk in self.table.column(column).chunks:
            coded = chunk.dictionary_encode("encode")
            values = coded.dictionary.to_pylist()
            chunk_codes = [code_of.setdefault(value, len(code_of)) for value in values]
            codes.append(np.array(chunk_codes, dtype=np.int64)[_values(coded.indices, _INT)])
        present, positions = np.unique(np.concatenate(codes)[rows], return_inverse=True)
        values = list(code_of)
        return [values[code] for code in present.tolist()], positions

    def fixed(self, column: str) -> np.ndarray:
        """Column of int32 `[N]`, or of byte strings of one length `[N, length]` uint8."""
        import pyarrow

        values = self.table.column(column)
        if not pyarrow.types.is_fixed_size_binary(values.type):
            return np.concatenate([np.empty(0, _INT), *(_values(c, _INT) for c in values.chunks)])
        width = values.type.byte_width
        chunks = [_values(chunk, np.dtype(f"V{width}")) for chunk in values.chunks]
        joined = np.concatenate([np.empty(0, f"V{width}"), *chunks])
        return joined.view(np.uint8).reshape(-1, width)


def _values(array: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """View of the values of an Arrow array without nulls."""
    offset = array.offset * dtype.itemsize
    return np.frombuffer(array.buffers()[1], dtype=dtype, count=len(array), offset=offset)


class ListColumn:
    """Column of lists of integers, each read as a view of the file."""

    def __init__(self, file: ArrowFile, column: str) -> None:
        self.file = file
        self.chunks = [
            (_values(chunk.offsets, _INT), _values(chunk.values, _INT))
            for chunk in file.table.column(column).chunks
        ]

    def __getitem__(self, row: int) -> np.ndarray:
        chunk, position = self.file.locate(row)
        offsets, values = self.chunks[chunk]
        return values[offsets[position] : offsets[position + 1]]


def cached_table(
    path: Path,
    schema: Mapping[str, str],
    make: Callable[[dict[str, Any]], Iterable[Row]],
    work: str,
) -> ArrowFile:
    """The table at a path of the cache, made first if it is not there.

    Processes that need the same table wait for the one that makes it; a killed one leaves nothing
    that is taken for the table.

    Args:
        path: path of the table without a suffix; it names the content.
        schema: names of pyarrow's types by column.
        make: gives the rows, and writes facts about all of them into its argument.
        work: what the process does that makes the table, for the message to those that wait.

    Raises:
        InputError: when pyarrow is missing, or the cache cannot be written.
    """
    require("a large table of texts", "pyarrow", extra="llm")
    table = path.with_suffix(".arrow")
    facts_file = path.with_suffix(".json")
    if table.is_file() and facts_file.is_file():
        return ArrowFile(table, read_json(facts_file))
    with locked(path, work):
        if not (table.is_file() and facts_file.is_file()):
            facts: dict[str, Any] = {}
            _write(table, schema, make(facts))
            with writable(facts_file):
                write_json(facts_file, facts)
        return ArrowFile(table, read_json(facts_file))


def _write(table: Path, schema: Mapping[str, str], rows: Iterable[Row]) -> None:
    """Write rows as record batches."""
    import pyarrow
    import pyarrow.ipc

    types = {"tokens": pyarrow.list_(pyarrow.int32()), "hash": pyarrow.binary(16)}
    fields = pyarrow.schema(
        [
            (name, types.get(type_name) or pyarrow.type_for_alias(type_name))
            for name, type_name in schema.items()
        ]
    )
    batches = _batches(rows)
    with (
        writable(table),
        replacing(table) as temporary,
        pyarrow.OSFile(str(temporary), "wb") as sink,
        pyarrow.ipc.new_stream(sink, fields) as writer,
    ):
        for batch in batches:
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, fields))


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
