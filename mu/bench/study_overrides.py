"""Overrides of single entries of a study: `mu bench --set KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mu.bench.study_presets import with_presets
from mu.bench.study_schema import MethodEntry, TaskEntry, entries
from mu.config.callback_options import nested_argument, set_argument
from mu.config.classes import did_you_mean, find
from mu.config.merge import listed, merge
from mu.config.spec_faults import CommandLineValue, plain_data
from mu.utils.errors import InputError

CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
METHOD_KEYS = frozenset(entry.name for entry in entries(MethodEntry))
TASK_KEYS = frozenset(entry.name for entry in entries(TaskEntry))
_STRUCTURE = ("preset", "class_path", "suites", "suites+", "methods", "tasks")
"""Last words of the overrides that come first, because others need the classes that they name."""


def with_overrides(
    path: Path, raw: Mapping[str, Any], overrides: Iterable[tuple[str, Any]]
) -> dict[str, Any]:
    """A study with presets written out and some entries set.

    A key is written with dots. Behind a class, the name of an argument stands for
    `init_args.NAME`; entries of a list are named by index, suites also by class; an argument under
    `suites` alone reaches every suite that takes it; `KEY+` appends to a list.

    Args:
        path: the study's file, for messages.
        raw: its content.
        overrides: keys and values, in order; a text of the command line is read as YAML.

    Raises:
        InputError: for a key that leads nowhere.

    >>> study = {"methods": {"SSD": {"model": {"class_path": "mu.methods.SSD"}}}, "seeds": [0, 1]}
    >>> with_overrides(Path(), study, [("methods.SSD.alpha", 3.0), ("seeds.1", 7)])["methods"]
    {'SSD': {'model': {'class_path': 'mu.methods.SSD', 'init_args': {'alpha': 3.0}}}}
    """
    pairs = list(overrides)
    structural = [pair for pair in pairs if _is_structural(pair[0])]
    study = merge(raw)
    for key, value in structural:
        study = _with_entry(study, key, value)
    study = with_presets(path, study)
    for key, value in pairs:
        if not _is_structural(key):
            study = _with_entry(study, key, value)
    return study


def _is_structural(key: str) -> bool:
    words = key.split(".")
    return words[-1] in _STRUCTURE or (len(words) == 2 and words[0] in ("tasks", "methods"))


def _with_entry(study: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    words = key.split(".")
    if not all(words):
        raise InputError(f"--set {key} has an empty word; write KEY.KEY=VALUE.")
    setter = _Setter(f"--set {key}", value)
    match words:
        case ["tasks", _, *_]:
            return {**study, "tasks": setter.named(study.get("tasks"), words[1:], "task")}
        case ["methods", _, *_]:
            return {**study, "methods": setter.named(study.get("methods"), words[1:], "method")}
        case ["suites", *inner] if inner:
            return {**study, "suites": setter.suites(study.get("suites"), inner)}
        case ["recipe", "model", *inner] if inner:
            recipe = _mapping(study.get("recipe"))
            cls = find("mu.methods.Train")
            model = setter.arguments(_mapping(recipe.get("model")), inner, cls)
            return {**study, "recipe": {**recipe, "model": model}}
        case ["backbone" | "gap" as name, *inner] if inner:
            return {**study, name: setter.component(study.get(name), inner)}
    return setter.plain(study, words)


class _Setter:
    """Value of one override, and the ways in which entries take it.

    Args:
        option: the override, for messages.
        value: plain data, or a text of the command line.
    """

    def __init__(self, option: str, value: Any) -> None:
        self.option = option
        self.text = str(value) if isinstance(value, CommandLineValue) else None
        self.value = plain_data(value)

    def plain(self, owner: Any, words: list[str]) -> Any:
        """Plain data with the value at a path."""
        if not words:
            both = isinstance(owner, Mapping) and isinstance(self.value, Mapping)
            return merge(owner, self.value) if both else self.value
        if isinstance(owner, list):
            return self.item(owner, words, self.plain)
        if isinstance(owner, Mapping) and ("class_path" in owner or "init_args" in owner):
            return self.component(owner, words)
        return self.entry(owner, words)

    def entry(self, owner: Any, words: list[str]) -> dict[str, Any]:
        """A mapping with the value at a path, whether or not it is a class."""
        owner = _mapping(owner)
        name, inner = _longest_key(owner, words)
        if not inner:
            return merge(owner, {name: self.value})
        return {**owner, name: self.plain(owner.get(name), inner)}

    def item(
        self, entries: list[Any], words: list[str], setter: Callable[[Any, list[str]], Any]
    ) -> list[Any]:
        """A list with the value in one of its entries."""
        index = int(words[0]) if words[0].isdigit() else len(entries)
        if index >= len(entries):
            count = len(entries)
            raise InputError(
                f"{self.option}: {words[0]!r} is no index of a list with {count} "
                f"entr{'y' if count == 1 else 'ies'}; give 0 to {count - 1}, or KEY+ to append."
            )
        changed = setter(entries[index], words[1:])
        return [*entries[:index], changed, *entries[index + 1 :]]

    def component(self, spec: Any, words: list[str]) -> Any:
        """A class with the value in one of its arguments, or as its class."""
        if not words:
            return merge({"entry": spec}, {"entry": self.value})["entry"]
        spec = {"class_path": spec} if isinstance(spec, str) else _mapping(spec)
        if words[0] == "init_args" and len(words) > 1:
            words = words[1:]
        if words[0] in CLASS_KEYS:
            return merge({"entry": spec}, {"entry": _nested(words, self.value)})["entry"]
        path = spec.get("class_path")
        cls = find(path) if isinstance(path, str) else None
        arguments = self.arguments(_mapping(spec.get("init_args")), words, cls)
        return {**spec, "init_args": arguments}

    def arguments(
        self, arguments: Mapping[str, Any], words: list[str], cls: type | None
    ) -> dict[str, Any]:
        """Arguments of a class with the value at a path."""
        name, *inner = words
        present = arguments.get(name)
        if inner and (isinstance(present, list) or (isinstance(present, Mapping) and present)):
            return {**arguments, name: self.plain(present, inner)}
        if cls is None:
            return merge(arguments, _nested(words, self.value))
        return merge(arguments, nested_argument(cls, words, self.value, self.text))

    def named(self, owner: Any, words: list[str], noun: str) -> dict[str, Any]:
        """Tasks or methods with the value in one of them."""
        owner = _mapping(owner)
        name, inner = _longest_key(owner, words)
        defines = not inner or inner[-1] in ("preset", "class_path")
        if name not in owner and not defines:
            hint = did_you_mean(name, map(str, owner), f"it has {', '.join(map(str, owner))}.")
            raise InputError(f"{self.option}: the study has no {noun} {name!r}; {hint}")
        setter = self.task if noun == "task" else self.method
        return {**owner, name: setter(owner.get(name), inner)}

    def task(self, spec: Any, words: list[str]) -> Any:
        """A task with the value in one of its entries or arguments."""
        match words:
            case ["suites", _, *_]:
                spec = _mapping(spec)
                return {**spec, "suites": self.suites(spec.get("suites"), words[1:])}
            case ["methods", _, *_]:
                spec = _mapping(spec)
                methods = _mapping(spec.get("methods"))
                name, inner = _longest_key(methods, words[1:])
                return {**spec, "methods": {**methods, name: self.method(methods.get(name), inner)}}
        if not words:
            return self.plain(spec, words)
        if words[0].removesuffix("+") in TASK_KEYS - set(CLASS_KEYS):
            return self.entry(spec, words)
        return self.component(spec, words)

    def method(self, spec: Any, words: list[str]) -> Any:
        """A method with the value in one of its entries or arguments."""
        if not words:
            return self.plain(spec, words)
        spec = _mapping(spec)
        if words[0] == "model" or words[0] not in METHOD_KEYS:
            inner = words[1:] if words[0] == "model" else words
            return {**spec, "model": self.component(spec.get("model"), inner)}
        return self.entry(spec, words)

    def suites(self, entries: Any, words: list[str]) -> list[Any]:
        """Suites with the value in one of them, in all of a class, or in all that take it."""
        entries = listed(entries)
        if words[0].isdigit():
            return self.item(entries, words, self.component)
        for count in range(len(words), 0, -1):
            name = ".".join(words[:count])
            if any(_is_class(entry, name) for entry in entries):
                return [
                    self.component(entry, words[count:]) if _is_class(entry, name) else entry
                    for entry in entries
                ]
        return set_argument(entries, words, self.value, self.option, self.text)


def _is_class(entry: Any, name: str) -> bool:
    path = entry.get("class_path") if isinstance(entry, Mapping) else entry
    return isinstance(path, str) and name in (path, path.rpartition(".")[2])


def _longest_key(owner: Mapping[str, Any], words: list[str]) -> tuple[str, list[str]]:
    """The longest key of a mapping with which some words begin, else the first word; the rest.

    >>> _longest_key({"SSD-0.1": {}}, ["SSD-0", "1", "trainer"])
    ('SSD-0.1', ['trainer'])
    """
    for count in range(len(words), 0, -1):
        if ".".join(words[:count]) in owner:
            return ".".join(words[:count]), words[count:]
    return words[0], words[1:]


def _nested(words: list[str], value: Any) -> dict[str, Any]:
    for word in reversed(words):
        value = {word: value}
    return value


def _mapping(value: Any) -> Any:
    return value if isinstance(value, Mapping) else {}
