"""Default lengths of the fits of a study, where its trainers have no end."""

from __future__ import annotations

from typing import Any

from mu.bench.study import Study
from mu.config.classes import find
from mu.config.components import merge
from mu.config.trainer_values import missing_length
from mu.core.trainer_checks import default_length


def default_lengths(study: Study) -> list[str]:
    """A line for each method, and for the recipe, that trains for its default length.

    Args:
        study: with all presets read.
    """
    trainings: dict[str, tuple[Any, Any]] = {}
    if study.trains_original:
        trainings["recipe"] = ("mu.methods.Train", study.recipe.get("trainer"))
    for task in study.tasks:
        for method in study.methods:
            spec = study.method_spec(task, method)
            if not spec.get("skip"):
                trainings[method] = (spec["model"]["class_path"], spec.get("trainer"))
    lines = []
    for name, (path, trainer) in trainings.items():
        method_class: Any = find(path)
        if method_class is not None and missing_length(merge(study.trainer, trainer), method_class):
            lines.append(
                f"{name}: no trainer.max_epochs, so it trains for {default_length(method_class)}, "
                "its default"
            )
    return lines
