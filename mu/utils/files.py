"""Atomic writing and checked reading of text, JSON and safetensors files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from mu.utils.errors import InputError


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Temporary file that replaces `path` atomically when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write a JSON file atomically; NaN and infinity are errors, because JSON has neither."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file; InputError when it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); it may have been cut off."
        ) from error


def save_tensors(
    path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically, with contiguous copies of shared tensors."""
    from safetensors.torch import save_file

    ready = {
        name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()
    }
    with replacing(path) as temporary:
        save_file(ready, temporary, metadata=dict(metadata) if metadata else None)


def read_json_lines(file: str | Path, needed: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines, or of a JSON array.

    Raises:
        InputError: for a line that cannot be read or lacks an entry.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"there is no file {file}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not a text file in UTF-8.") from error
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else None
    except json.JSONDecodeError as error:
        raise InputError(f"{file} is not JSON ({error}).") from error
    if rows is None:
        rows = [
            _json(line, line_number, file)
            for line_number, line in enumerate(text.split("\n"), 1)
            if line.strip()
        ]
    if not rows:
        raise InputError(f"{file} has no rows.")
    for line_number, row in enumerate(rows, 1):
        lacking = [
            name for name in needed if not isinstance(row, dict) or row.get(name) in (None, "", [])
        ]
        if lacking:
            raise InputError(f"row {line_number} of {file} has no {lacking[0]!r}.")
    return rows


def _json(line: str, number: int, file: str | Path) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"line {number} of {file} is not JSON ({error.msg}); a file is one JSON array, or has "
            "an object in each line."
        ) from error
