"""Tasks: DataModules that supply the forget and retain splits, with their selectors and split builders.

The names below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.augment import Compose, HorizontalFlip, RandomCrop, Rotation
    from tasks.base import ImageTask, SourceTask
    from tasks.captioned import CaptionedFolder
    from tasks.diabetes import Diabetes
    from tasks.digits import Digits
    from tasks.images import CIFAR10, CIFAR100, SVHN, ArrayImages, ImageFolder
    from tasks.prompts import PromptData, PromptList
    from tasks.selectors import ByClass, IndexFile, NoisyLabels, RandomCount, RandomFraction, ValueRange
    from tasks.shapes import Captions, Shapes, ShapesConcept

_HOME = {
    "tasks.augment": ("Compose", "HorizontalFlip", "RandomCrop", "Rotation"),
    "tasks.base": ("ImageTask", "SourceTask"),
    "tasks.captioned": ("CaptionedFolder",),
    "tasks.diabetes": ("Diabetes",),
    "tasks.digits": ("Digits",),
    "tasks.images": ("CIFAR10", "CIFAR100", "SVHN", "ArrayImages", "ImageFolder"),
    "tasks.prompts": ("PromptData", "PromptList"),
    "tasks.shapes": ("Captions", "Shapes", "ShapesConcept"),
    "tasks.selectors": ("ByClass", "IndexFile", "NoisyLabels", "RandomCount", "RandomFraction", "ValueRange"),
}
__all__ = [
    "CIFAR10",
    "CIFAR100",
    "SVHN",
    "ArrayImages",
    "ByClass",
    "CaptionedFolder",
    "Captions",
    "Compose",
    "Diabetes",
    "Digits",
    "HorizontalFlip",
    "ImageFolder",
    "ImageTask",
    "IndexFile",
    "NoisyLabels",
    "PromptData",
    "PromptList",
    "RandomCount",
    "RandomCrop",
    "RandomFraction",
    "Rotation",
    "Shapes",
    "ShapesConcept",
    "SourceTask",
    "ValueRange",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOME.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'tasks' has no attribute {name!r}")
