"""Classes that a run forgets as a whole, by the method's argument or by the task's split."""

from __future__ import annotations

from mu.core.module import UnlearningModule
from mu.utils.errors import InputError


def forgotten_classes(
    module: UnlearningModule, forget_class: int | None, num_classes: int
) -> list[int]:
    """Classes that the run forgets as a whole; none for random samples or part of a class.

    Args:
        module: fitted with a task.
        forget_class: the method's argument; None takes the classes of the task's split.
        num_classes: K, the model's number of classes.

    Raises:
        InputError: the model has no such class.
    """
    classes = _classes_of_split(module) if forget_class is None else [forget_class]
    unknown = [label for label in classes if not 0 <= label < num_classes]
    if unknown:
        raise InputError(
            f"there is no class {unknown[0]} among the {num_classes} of the model; classes are "
            "numbered from 0."
        )
    return classes


def forgets_whole_classes(module: UnlearningModule) -> bool:
    """Whether the task of a module forgets one class or several completely."""
    selector = module.task.split.selector if module.task is not None else {}
    classes = selector.get("classes", selector.get("forget_class"))
    return classes is not None and selector.get("count") is None


def _classes_of_split(module: UnlearningModule) -> list[int]:
    if module.task is None or not forgets_whole_classes(module):
        return []
    selector = module.task.split.selector
    classes = selector.get("classes", selector.get("forget_class"))
    labels = classes if isinstance(classes, list | tuple) else [classes]
    return [int(label) for label in labels]
