"""Tasks: DataModules that supply the forget and retain splits, with their selectors and split builders.

The names below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.augment import Compose, HorizontalFlip, RandomCrop, Rotation
    from tasks.base import ImageTask, SourceTask
    from tasks.diabetes import Diabetes
    from tasks.digits import Digits
    from tasks.images import CIFAR10, CIFAR100, SVHN, ArrayImages, ImageFolder
    from tasks.selectors import ByClass, IndexFile, NoisyLabels, RandomCount, RandomFraction, ValueRange

_HOME = {
    "tasks.augment": ("Compose", "HorizontalFlip", "RandomCrop", "Rotation"),
    "tasks.base": ("ImageTask", "SourceTask"),
    "tasks.diabetes": ("Diabetes",),
    "tasks.digits": ("Digits",),
    "tasks.images": ("CIFAR10", "CIFAR100", "SVHN", "ArrayImages", "ImageFolder"),
    "tasks.selectors": ("ByClass", "IndexFile", "NoisyLabels", "RandomCount", "RandomFraction", "ValueRange"),
}
__all__ = [
    "CIFAR10",
    "CIFAR100",
    "SVHN",
    "ArrayImages",
    "ByClass",
    "Compose",
    "Diabetes",
    "Digits",
    "HorizontalFlip",
    "ImageFolder",
    "ImageTask",
    "IndexFile",
    "NoisyLabels",
    "RandomCount",
    "RandomCrop",
    "RandomFraction",
    "Rotation",
    "SourceTask",
    "ValueRange",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOME.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'tasks' has no attribute {name!r}")
