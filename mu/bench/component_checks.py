"""Checks of what a study names before its first run: classes, arguments, files, ranges."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mu.bench.execution import needs_oracle, suite_spec
from mu.bench.study import Seeds, Study
from mu.config.classes import find
from mu.config.components import Components, merge
from mu.config.merge import listed
from mu.config.model_source import model_form
from mu.config.trainer_values import check_fit, check_names
from mu.utils.errors import InputError
from mu.utils.text_files import check_new_folder

_SOURCES = ("model", "weights", "pipeline")
"""Arguments of a backbone that name files, or a model of a hub."""


def check_components(study: Study, components: Components, with_search: bool = False) -> None:
    """Check that everything that a study names can be built, before anything has run.

    A suite also says whether what it needs is there: packages, judges, files.

    Args:
        study: the study.
        components: parsers.
        with_search: check the ranges of the search too.

    Raises:
        InputError: names the first one that cannot.
    """
    check_new_folder(study.output, "the output folder")
    # 1. original and oracle
    _check_trainer(components, study.trainer, study.recipe.get("trainer"), "recipe.trainer.")
    _check_references(study, components)
    # 2. tasks and what is measured on them
    for task in study.tasks:
        with _naming(f"tasks.{task}"):
            components.check("data", study.task_spec(task))
        for suite in [*study.suites_of(task), *([study.gap] if study.gap else [])]:
            _check_suite(suite, components)
    # 3. methods; tasks between which only numbers differ are checked once, because a parser takes
    # its time
    for method in study.methods:
        specs = {}
        for task in study.tasks:
            spec = study.method_spec(task, method)
            if not spec.get("skip"):
                specs.setdefault(repr(_types(spec)), spec)
        for spec in specs.values():
            _check_method(study, components, method, spec)
            if with_search:
                _check_search(study, components, method, spec)


def check_data(
    tasks: Iterable[str], seeds: Iterable[Seeds], make: Callable[[str, Seeds], Any]
) -> set[tuple[str, int]]:
    """Read the data of every task under every seed, and split them.

    Args:
        tasks: names of the tasks.
        seeds: repetitions.
        make: DataModule of a task under some seeds.

    Returns:
        Hash of the training set and seed of the training, one a distinct original.

    Raises:
        InputError: names the first task whose data cannot be read or split.
    """
    originals = set()
    for repetition in seeds:
        for task in tasks:
            with _naming(f"tasks.{task}"):
                split = make(task, repetition).original_split
            originals.add((split.train_hash, repetition.train))
    return originals


def _types(value: Any) -> Any:
    """Plain data with the type of each number in its place."""
    if isinstance(value, Mapping):
        # what a search said is not built
        return {key: _types(entry) for key, entry in value.items() if key != "searched"}
    if isinstance(value, list):
        return [_types(entry) for entry in value]
    return type(value) if isinstance(value, int | float) else value


def _check_trainer(
    components: Components, common: Mapping[str, Any], further: Any, prefix: str
) -> None:
    """Check the arguments of a Trainer, and the callbacks that a fit has beside the suites."""
    merged = merge(common, further)
    check_names(merge(common), "trainer.")
    check_names(merge(further), prefix)
    check_fit(merged, prefix)
    callbacks = listed(merged.get("callbacks"))
    if callbacks:
        with _naming(f"{prefix}callbacks"):
            components.check("callbacks", callbacks)
    for callback in callbacks:
        path = str(suite_spec(callback).get("class_path"))
        if hasattr(find(path), "measure"):
            raise InputError(f"{prefix}callbacks has the suite {path}; write it under `suites`.")


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
                components.check("model", merge(recipe, model))
    if study.pretrained_oracle is not None:
        model = {
            "class_path": "mu.UnlearningModule",
            "init_args": {"backbone": study.pretrained_oracle},
        }
        with _naming("oracle"):
            components.check("model", model)


def _check_suite(suite: Any, components: Components) -> None:
    needed = {"init_args": {"oracle": "RUN"}} if needs_oracle(suite) else {}
    for callback in components.make("callbacks", [merge(needed, suite_spec(suite))]):
        if hasattr(callback, "check"):
            callback.check()


def _check_method(
    study: Study, components: Components, method: str, spec: Mapping[str, Any]
) -> None:
    key = f"methods.{method}"
    _check_trainer(components, study.trainer, spec.get("trainer"), f"{key}.trainer.")
    with _naming(key):
        components.check("model", _model(study, spec))


def _model(study: Study, spec: Mapping[str, Any]) -> dict[str, Any]:
    return merge({"init_args": {"backbone": study.backbone}}, spec["model"])


def _check_search(
    study: Study, components: Components, method: str, spec: Mapping[str, Any]
) -> None:
    """Check that a method takes the first value of each range of its search."""
    for argument, space in (spec.get("search") or {}).items():
        value = space["choices"][0] if "choices" in space else space["low"]
        with _naming(f"methods.{method}.search.{argument}"):
            components.check("model", merge(_model(study, spec), nested_setting(argument, value)))


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
    """Put the key of the study's entry before the sentence of an error, and into its options."""
    try:
        yield
    except InputError as error:
        # the sentences are about `mu fit`, which has other options
        sentence = re.sub(r"--(?:data|model)\.(\S+) VALUE", rf"--set {key}.\1=VALUE", str(error))
        raise InputError(f"{key}: {sentence}") from error
