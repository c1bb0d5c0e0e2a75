"""Hashes that say whether two runs may be compared or reused."""

from __future__ import annotations

import hashlib
import inspect
import json
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mu.errors import InputError
from mu.recorded import spec_of

if TYPE_CHECKING:
    from mu.module import UnlearningModule


_CORE = ("mu.module", "mu.evaluation", "mu.health", "mu.norm_statistics", "mu.edit", "mu.recorded")
_INSTALLED = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]


def digest(value: Any) -> str:
    """16 hexadecimal digits of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def recipe_hash(module: UnlearningModule) -> str:
    """The recipe of a run that trains from scratch: architecture, optimizer, schedule, epochs, batches, augmentation.

    Seeds and weights are left out, so that an original and its oracle have the same recipe.
    """
    backbone = spec_of(module.backbone)
    if isinstance(backbone, dict):
        backbone = {**backbone, "init_args": {k: v for k, v in backbone["init_args"].items()
                                              if k not in ("weights", "pretrained", "init_seed") and v is not None}}
    trainer = module._trainer
    return digest({
        "backbone": backbone, "optimizer": spec_of(module.make_optimizer), "scheduler": spec_of(module.scheduler), "norm": module.norm,
        "epochs": trainer.max_epochs if trainer is not None else None,
        "clip": trainer.gradient_clip_val if trainer is not None else None,
        "precision": str(trainer.precision) if trainer is not None else None,
        "task": module.task.recipe() if module.task is not None else None,
    })


def source_hash(cls: type) -> str:
    """The sources of a method and of its bases, so that a changed method is not taken for the old one.

    The core (`mu.module`, `mu.evaluation`, `mu.health`, `mu.norm_statistics`, ...) is left out: a change there that moves numbers is a new
    version of mu, which is part of every key too.
    """
    texts = []
    for base in cls.__mro__:
        package = base.__module__.split(".")[0]
        if package in ("builtins", "torch", "lightning", "abc", "typing", "pytorch_lightning") or base.__module__ in _CORE:
            continue
        try:
            texts.append(inspect.getsource(inspect.getmodule(base) or base))
        except (OSError, TypeError):  # typed in at a prompt: there is no source to compare
            texts.append(base.__qualname__)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def own_sources(*specs: Any) -> dict[str, str]:
    """`source_hash` of every class in specifications that is neither of mu nor installed: a user's own backbone, suite or selector, whose
    change no version tells.

    Args:
        specs: plain data, in which classes stand as `class_path`.
    """
    from mu.recorded import find_class

    found = {}
    for path in sorted(set(_class_paths(specs))):
        if path.split(".")[0] in ("mu", "tasks", "callbacks"):
            continue
        try:
            cls = find_class(path)
            file = inspect.getsourcefile(cls)
        except (InputError, TypeError):  # what cannot be found is told by who needs it; a class that is typed in at a prompt has no file
            continue
        if file and not any(Path(file).is_relative_to(place) for place in _INSTALLED):
            found[path] = source_hash(cls)
    return found


def _class_paths(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        path = value.get("class_path")
        yield from [path] if isinstance(path, str) else []
        for entry in value.values():
            yield from _class_paths(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _class_paths(entry)
