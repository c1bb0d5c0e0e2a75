"""Hashes of settings, sources and models, to compare and reuse runs."""

from __future__ import annotations

import hashlib
import inspect
import json
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible, to_spec

# arguments that the hash of the weights covers
_BY_CONTENT = (
    "model",
    "weights",
    "pretrained",
    "pipeline",
    "network",
    "init_seed",
)


_CORE = ("mu.core.", "mu.utils.")
_INSTALLED = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]


def digest(value: Any) -> str:
    """Hash of plain data, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def source_hash(cls: type) -> str:
    """Hash of the sources of a class and of its bases, which changes with the code of a method.

    The core (`mu.core.module`, `mu.core.eval_steps`, `mu.core.checks`, `mu.core.batch_norm`, ...)
    is left out: a change there that moves numbers is a new version of mu, which is part of every
    key too.
    """
    texts = []
    for base in cls.__mro__:
        package = base.__module__.split(".")[0]
        if package in (
            "builtins",
            "torch",
            "lightning",
            "abc",
            "typing",
            "pytorch_lightning",
        ) or base.__module__.startswith(_CORE):
            continue
        try:
            texts.append(inspect.getsource(inspect.getmodule(base) or base))
        except (OSError, TypeError):  # a class defined at a prompt has no source
            texts.append(base.__qualname__)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def hash_user_sources(*specs: Any) -> dict[str, str]:
    """Source hashes of the user's classes in specifications, by class path.

    These are classes that are neither in mu nor installed (a backbone, a suite, a selector), so no
    version number changes with them.

    Args:
        specs: plain data, with classes as `class_path`.
    """
    from mu.utils.spec import find_class

    sources = {}
    for path in sorted(set(_class_paths(specs))):
        if path.split(".")[0] in ("mu", "tasks", "callbacks"):
            continue
        try:
            cls = find_class(path)
            file = inspect.getsourcefile(cls)
        except (
            InputError,
            TypeError,
        ):
            # a missing class is reported where it is built; a class defined at a prompt has no file
            continue
        if file and not any(Path(file).is_relative_to(folder) for folder in _INSTALLED):
            sources[path] = source_hash(cls)
    return sources


def _class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        path = value.get("class_path")
        yield from [path] if isinstance(path, str) else []
        for entry in value.values():
            yield from _class_paths(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _class_paths(entry)


def model_identity(backbone: Any, weights: str | None = None) -> str:
    """Identity of a model: weights, class, and the arguments other than weights.

    Args:
        backbone: the model.
        weights: hash of its weights, where it is known.
    """
    from mu.utils.weights import weights_hash

    def settled(spec: Any) -> Any:
        if isinstance(spec, dict):
            return {name: settled(value) for name, value in spec.items() if name not in _BY_CONTENT}
        return [settled(value) for value in spec] if isinstance(spec, list) else spec

    identity = (
        settled(to_spec(backbone))
        if isinstance(backbone, Reconstructible)
        else type(backbone).__name__
    )
    module: Any = backbone
    return digest([weights or weights_hash(module), identity])
