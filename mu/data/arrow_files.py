"""Memory-mapped Arrow files: tables that take no memory for a row.

A file has the stream format of Arrow, so `datasets.Dataset.from_file` opens it too. Beside it
stands a JSON file with facts about it, which is written last: a table without it is not complete.
"""

from __future__ import annotations

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
    def _starts(self) -> np.ndarray:
        """First row of each record batch."""
        lengths = [len(chunk) for chunk in self.table.column(0).chunks]
        return np.cumsum([0, *lengths])

    def locate(self, row: int) -> tuple[int, int]:
        """Record batch of a row, and the row's position in it."""
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        return chunk, row - int(self._starts[chunk])

    def text(self, column: str, row: int) -> Any:
        """Value of a column of texts."""
        chunk, position = self.locate(row)
        return self.table.column(column).chunk(chunk)[position].as_py()

    def fixed(self, column: str) -> np.ndarray:
        """Column of numbers `[N]`, or of byte strings of one length `[N, length]` uint8."""
        import pyarrow

        values = self.table.column(column)
        if not pyarrow.types.is_fixed_size_binary(values.type):
            return values.to_numpy()
        width = values.type.byte_width
        return np.concatenate(
            [np.empty((0, width), dtype=np.uint8)]
            + [
                np.frombuffer(
                    chunk.buffers()[1],
                    dtype=np.uint8,
                    count=len(chunk) * width,
                    offset=chunk.offset * width,
                ).reshape(-1, width)
                for chunk in values.chunks
            ]
        )


class ListColumn:
    """Column of lists of integers, each read as a view of the file."""

    def __init__(self, file: ArrowFile, column: str) -> None:
        self.file = file
        self.chunks = [
            (chunk.offsets.to_numpy(), chunk.values.to_numpy())
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
