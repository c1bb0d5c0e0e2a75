"""Tasks: DataModules that supply the forget and retain splits, with their selectors and split builders.

The names below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.augment import Compose, HorizontalFlip, RandomCrop, Rotation
    from tasks.authors import Authors
    from tasks.base import ImageTask, SourceTask
    from tasks.captioned import CaptionedFolder
    from tasks.corpus import Corpus
    from tasks.diabetes import Diabetes
    from tasks.digits import Digits
    from tasks.images import CIFAR10, CIFAR100, SVHN, ArrayImages, ImageFolder
    from tasks.prompts import PromptData, PromptList
    from tasks.question_answer import ByValue, QuestionAnswer
    from tasks.selectors import ByClass, IndexFile, NoisyLabels, RandomCount, RandomFraction, ValueRange
    from tasks.shapes import Captions, Shapes, ShapesConcept
    from tasks.texts import TextTask
    from tasks.tofu import TOFU

_HOME = {
    "tasks.augment": ("Compose", "HorizontalFlip", "RandomCrop", "Rotation"),
    "tasks.authors": ("Authors",),
    "tasks.base": ("ImageTask", "SourceTask"),
    "tasks.captioned": ("CaptionedFolder",),
    "tasks.corpus": ("Corpus",),
    "tasks.diabetes": ("Diabetes",),
    "tasks.digits": ("Digits",),
    "tasks.images": ("CIFAR10", "CIFAR100", "SVHN", "ArrayImages", "ImageFolder"),
    "tasks.prompts": ("PromptData", "PromptList"),
    "tasks.question_answer": ("ByValue", "QuestionAnswer"),
    "tasks.shapes": ("Captions", "Shapes", "ShapesConcept"),
    "tasks.selectors": ("ByClass", "IndexFile", "NoisyLabels", "RandomCount", "RandomFraction", "ValueRange"),
    "tasks.texts": ("TextTask",),
    "tasks.tofu": ("TOFU",),
}
__all__ = [
    "CIFAR10",
    "CIFAR100",
    "SVHN",
    "TOFU",
    "ArrayImages",
    "Authors",
    "ByClass",
    "ByValue",
    "CaptionedFolder",
    "Captions",
    "Compose",
    "Corpus",
    "Diabetes",
    "Digits",
    "HorizontalFlip",
    "ImageFolder",
    "ImageTask",
    "IndexFile",
    "NoisyLabels",
    "PromptData",
    "PromptList",
    "QuestionAnswer",
    "RandomCount",
    "RandomCrop",
    "RandomFraction",
    "Rotation",
    "Shapes",
    "ShapesConcept",
    "SourceTask",
    "TextTask",
    "ValueRange",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOME.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'tasks' has no attribute {name!r}")
