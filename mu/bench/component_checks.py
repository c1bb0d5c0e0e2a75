"""Checks of what a study names before its first run: classes, arguments, files, ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mu.bench.execution import needs_oracle, suite_spec
from mu.bench.study import Study
from mu.config.components import Components, merge
from mu.config.model_source import model_form
from mu.config.trainer_values import check_fit, check_names
from mu.utils.errors import InputError
from mu.utils.text_files import check_new_folder

_SOURCES = ("model", "weights", "pipeline")
"""Arguments of a backbone that name files, or a model of a hub."""


def check_components(study: Study, components: Components) -> None:
    """Check that everything that a study names can be built, before anything has run.

    A suite also says whether what it needs is there: packages, judges, files.

    Args:
        study: the study.
        components: parsers.

    Raises:
        InputError: names the first one that cannot.
    """
    check_new_folder(study.output, "the output folder")
    # 1. original and oracle
    _check_trainer(study.trainer, study.recipe.get("trainer"), "recipe.trainer.")
    _check_references(study, components)
    # 2. tasks and what is measured on them
    for task in study.tasks:
        with _naming(f"tasks.{task}"):
            components.resolve("data", study.task_spec(task))
        for suite in [*study.suites_of(task), *([study.gap] if study.gap else [])]:
            _check_suite(suite, components)
    # 3. methods; what differs on a task is checked once for every task that has it
    for method in study.methods:
        checked: list[Mapping[str, Any]] = []
        for task in study.tasks:
            spec = study.method_spec(task, method)
            if not spec.get("skip") and spec not in checked:
                checked.append(spec)
                _check_method(study, components, method, spec)


def _check_trainer(common: Mapping[str, Any], further: Any, prefix: str) -> None:
    check_names(common, "trainer.")
    check_names(further or {}, prefix)
    check_fit(merge(common, further), prefix)


def _check_references(study: Study, components: Components) -> None:
    """Check the backbone, the recipe and the model that is the oracle already."""
    backbones = {"backbone": study.backbone, "oracle": study.pretrained_oracle}
    for key, backbone in backbones.items():
        for name in _SOURCES:
            value = ((backbone or {}).get("init_args") or {}).get(name)
            if isinstance(value, str):
                with _naming(f"{key}.{name}"):
                    model_form(value)
    roles = {
        "mu.methods.Train": study.trains_original,
        "mu.methods.Retrain": study.oracle == "retrain",
    }
    recipe = {"init_args": study.recipe.get("model") or {}}
    for class_path, trained in roles.items():
        if trained:
            model = {"class_path": class_path, "init_args": {"backbone": study.backbone}}
            with _naming("recipe.model"):
                components.resolve("model", merge(recipe, model))
    if study.pretrained_oracle is not None:
        model = {
            "class_path": "mu.UnlearningModule",
            "init_args": {"backbone": study.pretrained_oracle},
        }
        with _naming("oracle"):
            components.resolve("model", model)


def _check_suite(suite: Any, components: Components) -> None:
    needed = {"init_args": {"oracle": "RUN"}} if needs_oracle(suite) else {}
    for callback in components.make("callbacks", [merge(needed, suite_spec(suite))]):
        if hasattr(callback, "check"):
            callback.check()


def _check_method(
    study: Study, components: Components, method: str, spec: Mapping[str, Any]
) -> None:
    """Check a method's arguments, and the ends of the ranges that a search draws from."""
    key = f"methods.{method}"
    _check_trainer(study.trainer, spec.get("trainer"), f"{key}.trainer.")
    model = merge({"init_args": {"backbone": study.backbone}}, spec["model"])
    with _naming(key):
        components.resolve("model", model)
    for argument, space in (spec.get("search") or {}).items():
        values = space["choices"] if "choices" in space else [space["low"], space["high"]]
        for value in values:
            with _naming(f"{key}.search.{argument}"):
                components.resolve("model", merge(model, nested_setting(argument, value)))


def nested_setting(argument: str, value: Any) -> dict[str, Any]:
    """Layer of a method's specification that sets one argument, written with dots.

    >>> nested_setting("optimizer.lr", 0.1)
    {'init_args': {'optimizer': {'init_args': {'lr': 0.1}}}}
    """
    layer: Any = value
    for word in reversed(argument.split(".")):
        layer = {"init_args": {word: layer}}
    return layer


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Put the key of the study's entry before the sentence of an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
