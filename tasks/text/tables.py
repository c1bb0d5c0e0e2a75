"""Readers of tables of texts: CSV, JSON, Parquet, and folders that the package datasets saved."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mu.utils.errors import InputError
from mu.utils.extras import require
from mu.utils.files import parse_json_line, read_json_lines

_BATCH = 2_000  # rows that are read at once


def read_table(file: Path | str) -> list[Any]:
    """Rows of a table, as they stand in it.

    Args:
        file: a `.csv` file; a `.parquet` file, or a folder of them (a data set from the hub); a
            folder that `save_to_disk` of datasets wrote; any other file is JSON lines or an array.

    Raises:
        InputError: when the table cannot be read or has no rows.
    """
    path = Path(file)
    if path.is_dir() or path.suffix.lower() in (".parquet", ".pq"):
        rows: list[Any] = list(_batches(path))
    elif path.suffix.lower() == ".csv":
        rows = _csv(path)
    else:
        rows = read_json_lines(file)
    if not rows:
        raise InputError(f"{file} has no rows.")
    return rows


def iterate_table(file: Path | str) -> Iterator[Any]:
    """Rows of `read_table`, read one after the other where the form of the file allows it.

    Raises:
        InputError: when the table cannot be read or has no rows.
    """
    path = Path(file)
    if path.is_dir() or path.suffix.lower() in (".parquet", ".pq"):
        rows = _batches(path)
    elif path.suffix.lower() == ".csv" or _is_array(path):
        rows = iter(read_table(file))
    else:
        rows = _lines(path)
    count = 0
    for row in rows:
        count += 1
        yield row
    if not count:
        raise InputError(f"{file} has no rows.")


def _is_array(path: Path) -> bool:
    """Whether a file of JSON is one array, or cannot be read."""
    try:
        with path.open(encoding="utf-8-sig") as opened:
            start = ""
            while not start:
                block = opened.read(1024)
                if not block:
                    return False
                start = block.lstrip()
    except (OSError, UnicodeDecodeError):
        return True
    return start.startswith("[")


def _lines(path: Path) -> Iterator[Any]:
    """Rows of a file of JSON lines."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as opened:
            for line_number, line in enumerate(opened, 1):
                if line.strip():
                    yield parse_json_line(line.rstrip("\n"), line_number, path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8.") from error


def _csv(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows: list[Any] = list(csv.DictReader(opened))
    except FileNotFoundError:
        raise InputError(f"there is no file {file}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} is not a CSV file in UTF-8 ({error}).") from error
    ragged = next((index for index, row in enumerate(rows, 1) if None in row), None)
    if ragged is not None:
        raise InputError(
            f"row {ragged} of {file} has more entries than there are columns; put a text with "
            "commas in quotation marks."
        )
    return rows


def _batches(path: Path) -> Iterator[Any]:
    """Rows of Parquet files or of a saved data set."""
    if not path.is_dir():
        yield from _parquet_rows([path])
        return
    if (path / "state.json").is_file():
        yield from _saved_rows(path)
        return
    splits = sorted(file.parent.name for file in path.glob("*/state.json"))
    if len(splits) == 1:
        yield from _saved_rows(path / splits[0])
        return
    if splits:
        raise InputError(
            f"{path} holds the data sets {', '.join(splits)}; name one of them, such as "
            f"{path / splits[0]}."
        )
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise InputError(
            f"{path} is a folder without a data set that save_to_disk wrote and without Parquet "
            "files; name a file, or such a folder."
        )
    yield from _parquet_rows(files)


def _parquet_rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    require("a Parquet file", "pyarrow", extra="llm")
    import pyarrow
    import pyarrow.parquet

    for file in files:
        try:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(_BATCH):
                yield from batch.to_pylist()
        except FileNotFoundError:
            raise InputError(f"there is no file {file}.") from None
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{file} cannot be read as Parquet ({reason}); save it again."
            ) from error


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of datasets wrote a folder."""
    return (folder / "state.json").is_file() or any(folder.glob("*/state.json"))


def _saved_rows(folder: Path) -> Iterator[Mapping[str, Any]]:
    require("a saved data set", "datasets", extra="llm")
    from datasets import Dataset, load_from_disk

    try:
        data = load_from_disk(str(folder))
        assert isinstance(data, Dataset)
        for start in range(0, len(data), _BATCH):
            yield from data.select(range(start, min(start + _BATCH, len(data)))).to_list()
    except Exception as error:  # pyarrow, datasets and json raise many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{folder} cannot be read as a saved data set ({reason}); save it again with "
            "save_to_disk."
        ) from error
