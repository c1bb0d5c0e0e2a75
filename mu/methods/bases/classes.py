"""Which whole classes a task forgets."""

from __future__ import annotations

from mu.core.module import UnlearningModule
from mu.utils.errors import InputError


def forgotten_classes(module: UnlearningModule, given: int | None, num_classes: int) -> list[int]:
    """Classes that the run forgets as a whole: `given`, or what the task's split says; none for
    random samples or part of a class.

    Args:
        module: fitted with a task.
        given: the method's own argument.
        num_classes: K.

    Raises:
        InputError: the model has no such class.
    """
    classes = [given] if given is not None else _of_split(module)
    wrong = [label for label in classes if not 0 <= label < num_classes]
    if wrong:
        raise InputError(
            f"there is no class {wrong[0]} among the {num_classes} of the model; classes are "
            "numbered from 0."
        )
    return classes


def _of_split(module: UnlearningModule) -> list[int]:
    selector = module.task.split.selector if module.task is not None else {}
    named = selector.get("classes", selector.get("forget_class"))
    if named is None or selector.get("count") is not None:
        return []
    return [int(label) for label in named] if isinstance(named, list | tuple) else [int(named)]
