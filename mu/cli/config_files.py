"""Configuration files: read, merged as plain data, and only then handed to jsonargparse.

So a task's file may say which backbone its method gets, while the method is named in another file
or on the command line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mu.config.merge import listed, merge
from mu.utils.errors import InputError

Config = dict[str, Any]
RECORDED = ("seed_everything", "trainer", "model", "data")
"""What a run's config.yaml says to another command; the rest belongs to the command that wrote
it.
"""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers: 1e-3 is one."""


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader would take for a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(
            r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
            r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+0123456789."),
    )


def read(path: str | Path) -> Config:
    """One YAML file.

    Raises:
        InputError: when it is missing, no YAML, or no mapping.
    """
    path = Path(path)
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"there is no configuration file {path}; {_near(path)}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; give a YAML file with -c.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {_place(error)}.") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InputError(
            f"{path} is not a configuration: it should be a mapping with {', '.join(RECORDED)}."
        )
    for key, allowed in {"trainer": (dict,), "model": (dict, str), "data": (dict, str)}.items():
        if found.get(key) is not None and not isinstance(found[key], allowed):
            wanted = (
                "a mapping of the Trainer's arguments"
                if key == "trainer"
                else "a class: {class_path: ..., init_args: {...}}"
            )
            raise InputError(f"{path}: {key} is {found[key]!r}; it should be {wanted}.")
    return found


def _near(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder} here either."
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".yaml", ".yml"))
    close = difflib.get_close_matches(path.name, names, n=3) or names[:8]
    return f"{folder} has {', '.join(close)}." if names else f"{folder} has no YAML file."


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    said = problem or " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}" if mark is not None else said


def merged(
    files: list[str], base: Mapping[str, Any] | None = None, chosen: Mapping[str, str] | None = None
) -> Config:
    """The files, later over earlier, over `base`; over them the classes that were named for `model`
    and `data`.
    """
    named = {key: {"class_path": name} for key, name in (chosen or {}).items()}
    return merge(base, *(_spelled_out(read(file)) for file in files), named)


def over_recorded(
    recorded: Mapping[str, Any], files: list[str], chosen: Mapping[str, str] | None = None
) -> Config:
    """The files over a run's own configuration: a callback that the run already had is replaced,
    not doubled.
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
    """The mapping under `key`, empty where there is none."""
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def parse(written: str) -> Config:
    """YAML that jsonargparse wrote."""
    return yaml.load(written, Loader=_Loader)


def text(config: Mapping[str, Any]) -> str:
    """As YAML."""
    return yaml.dump(dict(config), Dumper=_Dumper, sort_keys=False)


def _spelled_out(config: Config) -> Config:
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
