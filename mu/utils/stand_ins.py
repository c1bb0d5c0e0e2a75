"""Torch files with foreign Python objects inside, read with inert stand-ins for the objects.

Checkpoints of training programs hold options, callbacks or counters of classes of their own beside
the weights. Nothing of these classes is imported or called: torch's restricted unpickler builds an
empty object for each, and the tensors are read as usual.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

_MOST = 64
"""Foreign classes in one file, at most."""


class StandIn:
    """Inert object in place of one of a foreign class."""

    path = ""
    """Module and name of the foreign class or function."""
    container: type | None = None
    """`OrderedDict` or `list` where the foreign class is a kind of it."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return object.__new__(cls) if cls.container is None else cls.container()

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __repr__(self) -> str:
        return f"an object of {self.path}"


def load_with_stand_ins(file: Path | str) -> Any:
    """Content of a torch file on the CPU, with a `StandIn` for each object of a foreign class.

    Objects of foreign subclasses of dict and list become plain ones.

    Raises:
        pickle.UnpicklingError: the file needs what even a stand-in cannot give: functions of the
            system, or results of foreign functions that are called themselves.
    """
    containers: dict[str, type | None] = dict.fromkeys(foreign_classes(file))
    while True:
        stand_ins = [
            (type(path, (StandIn,), {"path": path, "container": container}), path)
            for path, container in containers.items()
        ]
        try:
            with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # torch names one fault at a time: a class that it does not know (in files from before
            # torch 1.6, whose classes cannot be listed), or one that holds items
            path, container = foreign_path(error), None
            if path is None:
                path, container = _container(error, containers)
            if path is None or containers.get(path) is not None or len(containers) >= _MOST:
                raise
            if container is None and path in containers:
                raise
            containers[path] = container


def foreign_path(error: Exception) -> str | None:
    """Path of the foreign class or function that an error of torch's unpickler names."""
    match = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
    if match is None:
        return None
    return match[1] if "." in match[1] else f"builtins.{match[1]}"


def _container(error: Exception, paths: dict[str, Any]) -> tuple[str | None, type | None]:
    """Foreign class that holds items, and the plain type of its form."""
    match = re.search(r"Can only (\w+) .*got <class '(.*?)'>", str(error))
    if match is None:
        return None, None
    path = next((path for path in paths if match[2].endswith(f".{path}") or match[2] == path), None)
    return path, OrderedDict if match[1].startswith("SETITEM") else list


def foreign_classes(file: Path | str) -> list[str]:
    """Paths of the foreign classes and functions that a torch file names, without loading it.

    Empty for files of the form before torch 1.6, and for what is no torch file.
    """
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(file)[:_MOST]
    except (ValueError, RuntimeError, OSError, pickle.UnpicklingError):
        return []
