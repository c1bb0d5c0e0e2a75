"""Checks of what a method needs, before its first step: backbone class, task parts, substitutes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from mu.backbones import Backbone
from mu.core.protocols import Method
from mu.core.substitutes import Substitute
from mu.data.datamodule import check_provides
from mu.utils.errors import InputError


def backbone_types(method_class: type) -> tuple[type[Backbone], ...]:
    """Backbone classes that a method is defined for, by its constructor's annotation.

    Example:
        >>> class Narrow:
        ...     def __init__(self, backbone: Backbone) -> None: ...
        >>> backbone_types(Narrow)
        (<class 'mu.backbones.base.Backbone'>,)
    """
    for base in method_class.__mro__:
        if "backbone" in getattr(base.__dict__.get("__init__"), "__annotations__", {}):
            annotation = get_type_hints(base.__init__)["backbone"]
            return get_args(annotation) or (annotation,)
    return (Backbone,)


def check_backbone(method_class: type, backbone: Any) -> None:
    """Refuse a backbone of a class that the method is not defined for.

    Raises:
        InputError: names the method, its backbone classes and the given one.
    """
    class_name = type(backbone).__name__
    if not isinstance(backbone, Backbone):
        raise InputError(
            f"{method_class.__name__} wraps a mu Backbone, not {class_name}; wrap a network as "
            "Classifier(network=...)."
        )
    types = backbone_types(method_class)
    if not isinstance(backbone, types):
        names = " or a ".join(cls.__name__ for cls in types)
        raise InputError(
            f"{method_class.__name__} is defined for a {names}, not for a {class_name}."
        )


def check_needs(method: Method, needs: Mapping[str, bool], substitute: Substitute | None) -> None:
    """Refuse a fit whose task, substitutes or trainable weights are not what the method needs.

    Args:
        method: before its fit.
        needs: whether it needs `forget`, `retain`, `labels` and `substitute`.
        substitute: the method's substitute targets.

    Raises:
        InputError: names the method and what is missing.
    """
    name = type(method).__name__
    if method.task is not None:
        if getattr(method, "plan", None) is None:
            raise InputError(
                f"{name} declares no plan, so it gets no batches; declare one in the class, as "
                "plan = Paired() of mu.data.plan for forget and retain samples in every step."
            )
        of_task = {need: needs[need] for need in ("forget", "retain", "labels")}
        check_provides(method.task, of_task, name)
    if needs["substitute"] and substitute is None:
        raise InputError(
            f"{name} needs substitute targets; give them as substitute=UniformLabel()."
        )
    if not method.trainable():
        raise InputError(f"{name} has no trainable weight; unfreeze some.")
