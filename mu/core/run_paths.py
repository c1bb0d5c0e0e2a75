"""Paths of a run folder: a run works from any directory, and when its base model has moved."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mu.utils.fingerprint import digest
from mu.utils.run_config import DIRECTORY, config_line
from mu.utils.run_layout import BASE

_PATHS = frozenset({"model", "weights", "path", "root", "folder", "file", "oracle"})
"""Arguments that take a path even where it has neither a slash nor a suffix."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf")
_LARGEST = 64 * 1024**2
"""Largest file in bytes that counts as no weights."""


def recorded_directory(run: Path) -> Path | None:
    """Directory in which a run was fitted; None where its config.yaml does not tell."""
    directory = config_line(run, DIRECTORY)
    return Path(directory) if directory else None


def located(value: Any, run: Path, name: str = "") -> Any:
    """Configuration of a run whose relative paths lead to files from the present directory.

    A path that leads nowhere from here is looked for in the directory in which the run was fitted;
    a base model that is not there either is built from the run folder, without weights, which the
    checkpoint holds.

    Args:
        value: plain data: a specification, a list, a value.
        run: the run folder.
        name: argument that takes the value.
    """
    if isinstance(value, list):
        return [located(entry, run, name) for entry in value]
    if isinstance(value, Mapping):
        entries = {key: located(entry, run, str(key)) for key, entry in value.items()}
        model = entries.get("model")
        if isinstance(model, str) and not _exists(Path(model)):
            description = base_folder(run, str(value["model"]))
            if description.is_dir():
                entries |= {"model": str(description), "init_seed": 0}
        return entries
    if isinstance(value, str) and _may_be_path(value, name) and not _exists(Path(value)):
        directory = recorded_directory(run)
        if directory is not None and _exists(directory / value):
            return str(directory / value)
    return value


def save_bases(run: Path, spec: Any) -> None:
    """Copy what builds the base models of a run, without weights, into its folder.

    Args:
        run: the run folder.
        spec: specification of the module; its entries `model` that name folders are base models.
    """
    for model in set(_models(spec)):
        target = base_folder(run, model)
        for file in sorted(Path(model).rglob("*")):
            relative = file.relative_to(model)
            hidden = any(part.startswith(".") for part in relative.parts)
            if hidden or not file.is_file() or file.suffix in _WEIGHTS:
                continue
            if file.stat().st_size <= _LARGEST:
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / relative)


def base_folder(run: Path, model: str) -> Path:
    """Folder in a run's folder with what builds a base model."""
    return run / BASE / digest(model)


def _models(spec: Any) -> Iterator[str]:
    """Local folders that a specification names as base models."""
    if isinstance(spec, list):
        for entry in spec:
            yield from _models(entry)
    elif isinstance(spec, Mapping):
        model = spec.get("model")
        if isinstance(model, str) and Path(model).is_dir():
            yield model
        for entry in spec.values():
            yield from _models(entry)


def _may_be_path(text: str, name: str) -> bool:
    """Whether a text may be a relative path."""
    return bool(text) and not Path(text).is_absolute() and (name in _PATHS or "/" in text)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a null byte
        return False
