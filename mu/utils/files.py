"""Atomic writing and checked reading of text, JSON and safetensors files."""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from mu.utils.errors import InputError
from mu.utils.text_files import read_text, shortened

_STOPPING = [stopping for stopping in signal.Signals if stopping.name in ("SIGTERM", "SIGHUP")]
"""Signals that end a process without the clean-up of Python."""


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Temporary file that replaces `path` atomically when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(path.parent, path.name)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with removed_when_stopped(temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def removed_when_stopped(path: Path) -> Iterator[None]:
    """Context in which a signal that ends the process first removes a temporary file or folder.

    A signal that has a handler already is left to it: Lightning ends a fit after its step. Of
    nested contexts the outermost counts.
    """
    process = os.getpid()

    def stop(signal_number: int, frame: Any) -> None:
        if os.getpid() == process:  # a forked process inherits the handler, but not the file
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        signal.signal(signal_number, signal.SIG_DFL)
        os.kill(os.getpid(), signal_number)

    unhandled: list[signal.Signals] = []
    if threading.current_thread() is threading.main_thread():
        unhandled = [
            stopping for stopping in _STOPPING if signal.getsignal(stopping) is signal.SIG_DFL
        ]
    for stopping in unhandled:
        signal.signal(stopping, stop)
    try:
        yield
    finally:
        for stopping in unhandled:
            signal.signal(stopping, signal.SIG_DFL)


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Lock file, held by one process (and thread) at a time while the block runs."""
    from filelock import FileLock

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def remove_stale(folder: Path, name: str = "*") -> None:
    """Remove temporary files of `replacing` whose process was killed.

    Args:
        folder: folder of the files.
        name: name of the file that they would have replaced; any where `*`.
    """
    pattern = name if name == "*" else glob.escape(name)
    for file in folder.glob(f".{pattern}.*.tmp"):
        process = file.name.split(".")[-2]
        if process.isdigit() and not _runs(int(process)):
            file.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether a process of this machine still runs."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


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
        return parse_json(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not valid JSON ({json_fault(error)}); it may have been cut off."
        ) from error


def parse_json(text: str) -> Any:
    """Value of a JSON text.

    Raises:
        ValueError: for invalid JSON, NaN or infinity, which JSON has not, and a key that stands
            twice in an object.
        RecursionError: for nesting too deep.
    """
    return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shortened(twice)!r} stands twice in one object")
    return entries


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def json_fault(error: Exception) -> str:
    """Reason of an error of `parse_json`, without the text that was read."""
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)


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
    text = read_text(file, encoding="utf-8-sig")
    try:
        rows = parse_json(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON ({json_fault(error)}).") from error
    if rows is None:
        rows = [
            parse_json_line(line, line_number, file)
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


def parse_json_line(line: str, line_number: int, file: str | Path) -> Any:
    """Value of a line of a file of JSON lines.

    Raises:
        InputError: names the line that is not JSON.
    """
    try:
        return parse_json(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else json_fault(error)
        raise InputError(
            f"line {line_number} of {file} is not JSON ({reason}); a file is one JSON array, or "
            "has an object in each line."
        ) from error
