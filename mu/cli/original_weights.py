"""Original weights in a configuration of a run whose checkpoint holds all weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonargparse

from mu.backbones import Backbone
from mu.config.classes import find
from mu.core.module import UnlearningModule
from mu.utils.errors import InputError
from mu.utils.run_layout import BASE


def forget_origin(spec: Any) -> None:
    """Remove the original weights of every backbone from a parsed specification.

    Architectures stay; the weights come from a checkpoint.
    """
    for arguments in _backbones(spec):
        for name in ("weights", "pretrained"):
            if name in arguments:
                arguments[name] = None


def missing_origin(spec: Any, run: Path) -> str:
    """Path of original weights in a parsed specification that leads nowhere; empty without one.

    Args:
        spec: specification of the method, its paths located.
        run: the run folder, from which a base model that is gone is built without weights.
    """
    for arguments in _backbones(spec):
        weights = arguments.get("weights")
        if isinstance(weights, str) and "/" in weights and not Path(weights).exists():
            return weights
        model = arguments.get("model")
        if isinstance(model, str) and (run / BASE).resolve() in Path(model).resolve().parents:
            return model
    return ""


def check_origin(method: UnlearningModule, path: str) -> None:
    """Refuse to resume a method that needs the original model, which is gone.

    Raises:
        InputError: names the path.
    """
    if method.needs_reference:
        raise InputError(
            f"{type(method).__name__} compares with the original model while it trains, and {path} "
            "holds its weights no more; put them back, and resume."
        )
    method.original_is_gone = True


def _backbones(spec: Any) -> Iterator[Any]:
    """Arguments of each backbone in a parsed specification."""
    if isinstance(spec, list | tuple):
        for entry in spec:
            yield from _backbones(entry)
    elif isinstance(spec, Mapping | jsonargparse.Namespace):
        values = vars(spec) if isinstance(spec, jsonargparse.Namespace) else spec
        for entry in list(values.values()):
            yield from _backbones(entry)
        cls = find(values["class_path"]) if isinstance(values.get("class_path"), str) else None
        if cls is not None and issubclass(cls, Backbone):
            yield values.get("init_args") or {}
