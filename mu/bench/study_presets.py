"""Configurations that a study names (`method/salun`, `task/digits_class`, `suite/tofu`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu.config.classes import did_you_mean
from mu.config.merge import listed, merge
from mu.utils.errors import InputError
from mu.utils.shipped_files import SUFFIXES, config_names, find_config
from mu.utils.text_files import read_yaml, shortened


def with_presets(path: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """A study with the configurations that it names written out.

    Entries of the study lie over those of the configuration. Malformed entries stay as they are,
    for the check of the schema.

    Args:
        path: the study's file, for messages.
        raw: its content.

    Returns:
        New plain data.

    Raises:
        InputError: for a configuration that does not exist, or holds nothing of that sort.
    """
    study = merge(raw)
    tasks = _mapping(study.get("tasks"))
    backbones = []
    for name, spec in tasks.items():
        tasks[name], backbone = _task(f"{path}: tasks.{name}", _as_mapping(spec))
        backbones += [backbone] if backbone else []
    if backbones and not study.get("backbone"):
        study["backbone"] = _common_backbone(path, backbones)
    task_specs = {f"tasks.{key}": spec for key, spec in tasks.items() if isinstance(spec, dict)}
    for key, owner in {"": study, **task_specs}.items():
        methods = _mapping(owner.get("methods"))
        prefix = f"{path}: {key}.methods" if key else f"{path}: methods"
        for name, spec in methods.items():
            methods[name] = _method(f"{prefix}.{name}", _as_mapping(spec), tasks)
        if isinstance(owner.get("suites"), list):
            owner["suites"] = _suites(path, owner["suites"])
    return study


def _task(key: str, spec: Any) -> tuple[Any, Any]:
    """Task with its preset written out, and the backbone that the preset names."""
    if not isinstance(spec, Mapping) or not spec.get("preset"):
        return spec, None
    content = configuration(f"{key}.preset", spec["preset"])
    task = merge(_section(f"{key}.preset", spec["preset"], content, "data"), _rest(spec))
    arguments = _mapping(_mapping(content.get("model")).get("init_args"))
    return task, arguments.get("backbone")


def _method(key: str, spec: Any, tasks: Mapping[str, Any]) -> Any:
    if not isinstance(spec, Mapping) or not spec.get("preset"):
        return spec
    preset = spec["preset"]
    content = configuration(f"{key}.preset", preset)
    below: dict[str, Any] = {"model": _section(f"{key}.preset", preset, content, "model")}
    if content.get("trainer"):
        below["trainer"] = content["trainer"]
    # arguments of the task, of which a method may have the batch size of forget samples alone
    data = dict(_mapping(_mapping(content.get("data")).get("init_args")))
    if "forget_batch_size" in data:
        below["forget_batch_size"] = data.pop("forget_batch_size")
    for name, value in data.items():
        arguments = [_mapping(_mapping(task).get("init_args")) for task in tasks.values()]
        if any(entry.get(name) != value for entry in arguments):
            raise InputError(
                f"{key}.preset {preset} sets the task's {name} to {value}, which the methods of a "
                f"study share; write {name} into each task's init_args, or write the method "
                "without a preset."
            )
    return merge(below, _rest(spec))


def _common_backbone(path: Path, backbones: list[Any]) -> Any:
    if any(backbone != backbones[0] for backbone in backbones):
        raise InputError(
            f"{path}: the presets of the tasks have different backbones; write the study's under "
            "`backbone`."
        )
    return backbones[0]


def _suites(path: Path, entries: list[Any]) -> list[Any]:
    """Suites with those of named configurations in their place; equal ones stand once."""
    suites: list[Any] = []
    for entry in entries:
        if isinstance(entry, str) and is_configuration(entry):
            content = configuration(f"{path}: suites", entry)
            trainer = _mapping(content.get("trainer"))
            named = listed(trainer.get("callbacks+")) or listed(trainer.get("callbacks"))
            if not named:
                raise InputError(f"{path}: the configuration {entry} in suites holds no suite.")
            suites += [
                suite for suite in named if _class_alone(suite) not in map(_class_alone, suites)
            ]
        else:
            suites.append(entry)
    return suites


def _class_alone(suite: Any) -> Any:
    """A class path in place of a class without arguments, so that the two are equal."""
    if isinstance(suite, Mapping) and set(suite) == {"class_path"}:
        return suite["class_path"]
    return suite


def is_configuration(name: str) -> bool:
    """Whether a text names a configuration rather than a class."""
    return "/" in name or name.endswith(SUFFIXES[1:])


def configuration(key: str, name: Any) -> Mapping[str, Any]:
    """Content of a configuration.

    Args:
        key: entry that names it, for messages.
        name: `method/salun`, `configs/method/salun.yaml`, or another path.

    Raises:
        InputError: where there is none, or it is no mapping.
    """
    if not isinstance(name, str):
        raise InputError(
            f"{key} is {shortened(repr(name))}; it should be the name of a configuration."
        )
    file = find_config(name)
    if not file.is_file():
        hint = did_you_mean(name, config_names(), "mu list configs lists them.")
        raise InputError(f"{key} names the configuration {name!r}, which does not exist; {hint}")
    content = read_yaml(file)
    if not isinstance(content, Mapping):
        raise InputError(f"{key} names {file}, which is not a mapping.")
    return content


def _section(key: str, name: str, content: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    """The task or method of a configuration."""
    value = content.get(section)
    value = {"class_path": value} if isinstance(value, str) else value
    if not isinstance(value, Mapping) or not value.get("class_path"):
        noun = {"data": "task", "model": "method"}[section]
        raise InputError(f"{key} names {name}, which holds no {noun} (no `{section}`).")
    return value


def _as_mapping(spec: Any) -> Any:
    """A task or method written as one text: a configuration; anything else unchanged."""
    return {"preset": spec} if isinstance(spec, str) and is_configuration(spec) else spec


def _rest(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "preset"}


def _mapping(value: Any) -> Any:
    return value if isinstance(value, Mapping) else {}
