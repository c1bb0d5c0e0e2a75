"""Plain specifications of classes as short text: `SGD(lr=0.1)`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

SILENT = ("backbone", "seed", "init_seed", "weights")
"""Arguments that are shown elsewhere on the page, or differ between seeds by design."""


def short(value: Any) -> str:
    """A class path and its arguments as one line of code, without None, False and torch's defaults.

    Example:
        >>> short({"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "foreach": None}})
        'SGD(lr=0.1)'
    """
    if isinstance(value, Mapping) and "class_path" in value:
        defaults = _torch_defaults(str(value["class_path"]))
        arguments = ", ".join(
            f"{name}={short(v)}"
            for name, v in (value.get("init_args") or {}).items()
            if not is_empty(v) and (name not in defaults or not _equal(v, defaults[name]))
        )
        return f"{str(value['class_path']).rpartition('.')[2]}({arguments})"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={short(v)}" for name, v in value.items() if not is_empty(v))
    if isinstance(value, list | tuple):
        return f"[{', '.join(short(v) for v in value)}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, false, or an empty list or mapping."""
    return value is None or value is False or value == {} or value == []


def _equal(value: Any, default: Any) -> bool:
    return (list(value) if isinstance(value, list | tuple) else value) == (
        list(default) if isinstance(default, tuple) else default
    )


def _torch_defaults(path: str) -> dict[str, Any]:
    """Defaults of an optimizer's arguments; empty for any other class."""
    if not path.startswith("torch.optim."):
        return {}
    import torch

    optimizer = getattr(torch.optim, path.rpartition(".")[2], None)
    if optimizer is None:
        return {}
    return {name: p.default for name, p in inspect.signature(optimizer).parameters.items()}
