"""Readers of tables of texts: CSV, JSON, Parquet, and folders that the package datasets saved."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu.utils.errors import InputError
from mu.utils.extras import require
from mu.utils.files import read_json_lines


def read_table(file: Path | str) -> list[Any]:
    """Rows of a table, as they stand in it.

    Args:
        file: a `.csv` file; a `.parquet` file, or a folder of them (a data set from the hub); a
            folder that `save_to_disk` of datasets wrote; any other file is JSON lines or an array.

    Raises:
        InputError: when the table cannot be read or has no rows.
    """
    path = Path(file)
    if path.is_dir():
        rows = _folder(path)
    elif path.suffix.lower() in (".parquet", ".pq"):
        rows = _parquet([path])
    elif path.suffix.lower() == ".csv":
        rows = _csv(path)
    else:
        rows = read_json_lines(file)
    if not rows:
        raise InputError(f"{file} has no rows.")
    return rows


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


def _parquet(files: list[Path]) -> list[dict[str, Any]]:
    require("a Parquet file", "pyarrow", extra="llm")
    import pyarrow
    import pyarrow.parquet

    rows: list[dict[str, Any]] = []
    for file in files:
        try:
            rows += pyarrow.parquet.ParquetFile(file).read().to_pylist()
        except FileNotFoundError:
            raise InputError(f"there is no file {file}.") from None
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{file} cannot be read as Parquet ({reason}); save it again."
            ) from error
    return rows


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of datasets wrote a folder."""
    return (folder / "state.json").is_file() or any(folder.glob("*/state.json"))


def _folder(folder: Path) -> list[Any]:
    """Rows of a saved data set, or of the Parquet files in a folder."""
    if (folder / "state.json").is_file():
        return _saved(folder)
    splits = sorted(file.parent.name for file in folder.glob("*/state.json"))
    if len(splits) == 1:
        return _saved(folder / splits[0])
    if splits:
        raise InputError(
            f"{folder} holds the data sets {', '.join(splits)}; name one of them, such as "
            f"{folder / splits[0]}."
        )
    files = sorted(folder.glob("*.parquet"))
    if files:
        return _parquet(files)
    raise InputError(
        f"{folder} is a folder without a data set that save_to_disk wrote and without Parquet "
        "files; name a file, or such a folder."
    )


def _saved(folder: Path) -> list[Mapping[str, Any]]:
    require("a saved data set", "datasets", extra="llm")
    from datasets import Dataset, load_from_disk

    try:
        data = load_from_disk(str(folder))
        assert isinstance(data, Dataset)
        return data.to_list()
    except Exception as error:  # pyarrow, datasets and json raise many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{folder} cannot be read as a saved data set ({reason}); save it again with "
            "save_to_disk."
        ) from error
