"""Original weights in a configuration of a run whose checkpoint holds all weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonargparse

from mu.backbones import Backbone
from mu.config.classes import find


def forget_origin(spec: Any) -> None:
    """Remove the original weights of every backbone from a parsed specification.

    Architectures stay; the weights come from a checkpoint.
    """
    if isinstance(spec, list | tuple):
        for entry in spec:
            forget_origin(entry)
    elif isinstance(spec, Mapping | jsonargparse.Namespace):
        values = vars(spec) if isinstance(spec, jsonargparse.Namespace) else spec
        for entry in list(values.values()):
            forget_origin(entry)
        cls = find(values["class_path"]) if isinstance(values.get("class_path"), str) else None
        if cls is None or not issubclass(cls, Backbone):
            return
        arguments = values.get("init_args") or {}
        for name in ("weights", "pretrained"):
            if name in arguments:
                arguments[name] = None
