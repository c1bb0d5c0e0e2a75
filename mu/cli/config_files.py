"""Configuration files, read and merged as plain data before jsonargparse parses them.

So a task's file may give a method its backbone while the method is named in another file or on the
command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mu.config.merge import listed, merge
from mu.utils.errors import InputError
from mu.utils.shipped_files import SUFFIXES, config_names, find_config
from mu.utils.text_files import Dumper, Loader, file_fault, read_yaml, shortened

Config = dict[str, Any]
RECORDED = ("seed_everything", "trainer", "model", "data")
"""Sections of a run's config.yaml that other commands use; the rest belongs to its own command."""


def read(path: str | Path) -> Config:
    """Content of a configuration file.

    Raises:
        InputError: for a missing file, invalid YAML, or anything but a mapping.
    """
    fault = file_fault(path)
    if fault == "does not exist":
        path = find_config(path)
        fault = file_fault(path)
    if fault == "does not exist":
        raise InputError(f"there is no configuration file {path}; {_files_beside(Path(path))}")
    if fault is not None:
        raise InputError(f"{shortened(path, 200)} {fault}; give a YAML file with -c.")
    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(
            f"{path} is not a configuration: it should be a mapping with {', '.join(RECORDED)}."
        )
    for key, allowed in {"trainer": (dict,), "model": (dict, str), "data": (dict, str)}.items():
        if content.get(key) is not None and not isinstance(content[key], allowed):
            expected = (
                "a mapping of the Trainer's arguments"
                if key == "trainer"
                else "a class: {class_path: ..., init_args: {...}}"
            )
            raise InputError(f"{path}: {key} is {content[key]!r}; it should be {expected}.")
    for key, value in content.items():
        _check_specifications(value, key, path)
    return content


def _check_specifications(value: Any, key: str, path: str | Path) -> None:
    """Check that class paths are texts and arguments are mappings, at any depth."""
    if isinstance(value, list):
        for entry in value:
            if key == "trainer.callbacks" and not _names_class(entry):
                raise InputError(
                    f"{path}: {key} has the entry {shortened(entry)}; each should be a class: "
                    "{class_path: ..., init_args: {...}}."
                )
            _check_specifications(entry, key, path)
    elif isinstance(value, Mapping):
        class_path = value.get("class_path", "unset")
        if not isinstance(class_path, str) or not class_path.strip():
            raise InputError(
                f"{path}: {key}.class_path is {shortened(repr(class_path))}; it should be the "
                "path of a class, for example mu.methods.SalUn."
            )
        arguments = value.get("init_args")
        if arguments is not None and not isinstance(arguments, Mapping):
            raise InputError(
                f"{path}: {key}.init_args is {shortened(repr(arguments))}; it should be a mapping "
                "of the class's arguments."
            )
        for name, entry in value.items():
            _check_specifications(entry, key if name == "init_args" else f"{key}.{name}", path)


def _names_class(entry: Any) -> bool:
    """Whether an entry is a class path or a specification."""
    return isinstance(entry, str) or (isinstance(entry, Mapping) and "class_path" in entry)


def _files_beside(path: Path) -> str:
    shipped = {name.rpartition("/")[2]: name for name in config_names()}
    close = difflib.get_close_matches(path.stem, shipped, n=3)
    if path.parent.is_dir() and path.parent != Path():
        files = sorted(
            entry.name for entry in path.parent.iterdir() if entry.suffix in SUFFIXES[1:]
        )
        names = difflib.get_close_matches(path.name, files, n=3) or files[:8]
        if names:
            return f"{path.parent} has {', '.join(names)}."
    if close:
        return f"did you mean {' or '.join(shipped[name] for name in close)} (mu list configs)?"
    return "mu list configs lists those that come with mu."


def merged(
    files: list[str], base: Mapping[str, Any] | None = None, chosen: Mapping[str, str] | None = None
) -> Config:
    """Configuration files merged over `base`, later over earlier.

    Args:
        files: their paths.
        base: configuration below them.
        chosen: class names by `model` and `data`, over them.
    """
    class_paths = {key: {"class_path": name} for key, name in (chosen or {}).items()}
    return merge(base, *(_with_class_paths(read(file)) for file in files), class_paths)


def over_recorded(
    recorded: Mapping[str, Any], files: list[str], chosen: Mapping[str, str] | None = None
) -> Config:
    """Configuration files merged over a run's recorded configuration.

    A callback that the run already has is replaced, not doubled.

    Args:
        recorded: the run's configuration.
        files: their paths.
        chosen: class names by `model` and `data`, over them.
    """
    before = listed(section(recorded, "trainer").get("callbacks"))
    config = merged(files, recorded, chosen)
    callbacks = listed(section(config, "trainer").get("callbacks"))
    added = callbacks[len(before) :]
    if before and callbacks[: len(before)] == before:
        names = {_class_name(entry) for entry in added}
        config["trainer"]["callbacks"] = [
            *(entry for entry in before if _class_name(entry) not in names),
            *added,
        ]
    return config


def section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under a key; empty where it is absent or no mapping."""
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def parse(text: str) -> Config:
    """Configuration from YAML that jsonargparse wrote."""
    return yaml.load(text, Loader=Loader)


def to_yaml(config: Mapping[str, Any]) -> str:
    """Configuration as YAML."""
    return yaml.dump(dict(config), Dumper=Dumper, sort_keys=False)


def _with_class_paths(config: Config) -> Config:
    for key in ("model", "data"):
        if isinstance(config.get(key), str):
            config[key] = {"class_path": config[key]}
    return config


def _class_name(entry: Any) -> str:
    path = (
        entry
        if isinstance(entry, str)
        else entry.get("class_path", "")
        if isinstance(entry, Mapping)
        else ""
    )
    return str(path).rpartition(".")[2]
