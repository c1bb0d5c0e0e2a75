"""Reading and checking of study files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu.bench.study import Seeds, Study
from mu.bench.study_checks import LARGEST_SEED, check_method, check_types
from mu.config.callback_options import set_argument
from mu.config.merge import listed, merge
from mu.utils.errors import InputError
from mu.utils.shipped_files import find_config
from mu.utils.text_files import check_folder_name, file_fault, read_yaml, shortened

KEYS = {
    "name",
    "output",
    "title",
    "seeds",
    "backbone",
    "original",
    "oracle",
    "recipe",
    "tasks",
    "methods",
    "suites",
    "gap",
    "trainer",
    "search",
    "threads",
}
PAIR = {"model", "trainer", "forget_batch_size", "search", "found", "skip"}
CHOICES = {"original": ("trained", "given"), "oracle": ("retrain", "none")}
"""What a study may say about its two reference models; the first is the default."""

RESERVED_FOLDERS = ("originals", "search")
"""Folders of a study beside those of its tasks."""


def read_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read and check a study file.

    Args:
        path: the YAML file.
        overrides: merged over it.

    Raises:
        InputError: names the file, the key and what would be right.
    """
    if file_fault(path) == "does not exist":
        path = find_config(path)
        if file_fault(path) == "does not exist":
            raise InputError(f"there is no study file {path}.")
    path = Path(path)
    raw = read_yaml(path)
    if not isinstance(raw, Mapping):
        raise InputError(
            f"{path} is not a study: it should be a mapping with {', '.join(sorted(KEYS))}."
        )
    raw = _with_overrides(raw, overrides or {})
    unknown = sorted(set(raw) - KEYS)
    if unknown:
        raise InputError(
            f"{path} has the unknown key {unknown[0]!r}; a study has {', '.join(sorted(KEYS))}."
        )
    chosen = {key: raw.get(key, choices[0]) for key, choices in CHOICES.items()}
    for key, choices in CHOICES.items():
        if chosen[key] not in choices and not (
            key == "oracle" and isinstance(chosen[key], Mapping) and chosen[key]
        ):
            raise InputError(
                f"{path}: {key} is {chosen[key]!r}; it is {' or '.join(choices)}"
                f"{', or init_args of the backbone that is the oracle' if key == 'oracle' else ''}."
            )
    _check_keys(
        path, raw, needs_recipe=chosen["original"] == "trained" or chosen["oracle"] == "retrain"
    )
    check_types(path, raw)
    name = str(raw.get("name") or path.stem)
    if not raw.get("output"):
        check_folder_name(name, f"{path}: the name")
    _check_names(path, raw)
    _check_methods(path, raw)
    return Study(
        name=name,
        output=Path(raw.get("output") or Path("runs") / name),
        seeds=tuple(_seeds(path, raw.get("seeds", [0]))),
        backbone=raw["backbone"],
        recipe=raw.get("recipe") or {},
        tasks=raw["tasks"],
        methods=raw["methods"],
        suites=raw["suites"],
        gap=raw.get("gap"),
        title=str(raw.get("title") or name),
        trainer=raw.get("trainer") or {},
        search=raw.get("search") or {},
        threads=raw.get("threads"),
        **chosen,
    )


def _with_overrides(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A study with the entries of the command line.

    Arguments under `suites` and `tasks.TASK.suites` reach every suite there that takes them.
    """
    study = merge(raw, _without_suites(overrides))
    owners = [(study, overrides, "suites")]
    for name, entries in _mapping(overrides.get("tasks")).items():
        task = _mapping(study.get("tasks")).get(name)
        owners += [(task, _mapping(entries), f"tasks.{name}.suites")]
    for owner, entries, key in owners:
        arguments = entries.get("suites")
        if not isinstance(arguments, Mapping) or not isinstance(owner, dict):
            continue
        for name, value in arguments.items():
            suites = listed(owner.get("suites"))
            owner["suites"] = set_argument(suites, [str(name)], value, f"--set {key}.{name}")
    return study


def _without_suites(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of the command line other than arguments of suites."""
    entries = {
        key: value
        for key, value in overrides.items()
        if key != "suites" or not isinstance(value, Mapping)
    }
    if isinstance(entries.get("tasks"), Mapping):
        entries["tasks"] = {
            name: _without_suites(task) if isinstance(task, Mapping) else task
            for name, task in entries["tasks"].items()
        }
    return entries


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _check_keys(path: Path, raw: Mapping[str, Any], needs_recipe: bool) -> None:
    for key in ("backbone", "recipe", "tasks", "methods", "suites"):
        if not raw.get(key):
            if key != "recipe":
                raise InputError(f"{path} lacks {key!r}, which every study needs.")
            if needs_recipe:
                raise InputError(
                    f"{path} lacks 'recipe', by which original and oracle are trained; a study "
                    "does without where it says `original: given` and `oracle: none`."
                )
        elif not isinstance(raw[key], list if key == "suites" else Mapping):
            raise InputError(
                f"{path}: {key} should be a {'list' if key == 'suites' else 'mapping'}, not "
                f"{raw[key]!r}."
            )


def _check_names(path: Path, raw: Mapping[str, Any]) -> None:
    """Check the names of tasks and methods, which become folders below the study's."""
    for key in ("tasks", "methods"):
        names = [check_folder_name(name, f"{path}: the name in {key}") for name in raw[key]]
        folded = [name.casefold() for name in names]
        for name in names:
            if folded.count(name.casefold()) > 1:
                raise InputError(
                    f"{path}: {key}.{name} differs from another name only in capitals, and both "
                    "are names of folders; rename one."
                )
    for name in raw["tasks"]:
        if name in RESERVED_FOLDERS:
            raise InputError(
                f"{path}: tasks.{name} is the name of a folder that the study itself writes; "
                "rename the task."
            )


def _check_methods(path: Path, raw: Mapping[str, Any]) -> None:
    for task, spec in raw["tasks"].items():
        if not isinstance(spec, Mapping) or not isinstance(spec.get("methods") or {}, Mapping):
            raise InputError(
                f"{path}: tasks.{task} should be a mapping with a class_path, and its methods one "
                f"by name; it is {spec!r}."
            )
        if not isinstance(spec.get("suites") or [], list):
            raise InputError(
                f"{path}: tasks.{task}.suites should be a list, not {spec['suites']!r}."
            )
    inside = {
        f"tasks.{task}.methods": spec.get("methods") or {} for task, spec in raw["tasks"].items()
    }
    for where, methods in {"methods": raw["methods"], **inside}.items():
        for name, spec in methods.items():
            if name in ("original", "oracle"):
                raise InputError(
                    f"{path}: {where}.{name} is a reserved name; original and oracle are trained "
                    "by `recipe`."
                )
            if name not in raw["methods"]:
                raise InputError(
                    f"{path}: {where}.{name} overrides a method that `methods` does not have."
                )
            if not isinstance(spec, Mapping):
                raise InputError(
                    f"{path}: {where}.{name} should be a mapping with {', '.join(sorted(PAIR))}, "
                    f"not {spec!r}."
                )
            unknown = sorted(set(spec) - PAIR)
            if unknown:
                raise InputError(
                    f"{path}: {where}.{name} has the unknown key {unknown[0]!r}; it has "
                    f"{', '.join(sorted(PAIR))}."
                )
            check_method(f"{path}: {where}.{name}", spec)
            _check_backbone(f"{path}: {where}.{name}", spec)
    for name, spec in raw["methods"].items():
        if "class_path" not in (spec.get("model") or {}):
            raise InputError(f"{path}: methods.{name}.model needs a class_path.")


def _check_backbone(where: str, spec: Mapping[str, Any]) -> None:
    value: Any = spec
    for key in ("model", "init_args", "backbone", "init_args"):
        value = value.get(key)
        if not isinstance(value, Mapping):
            return
    if "weights" in value:
        raise InputError(
            f"{where} gives its backbone weights of its own; every method starts from the "
            "original, whose weights belong to the study's backbone."
        )


def _seeds(path: Path, raw: Any) -> list[Seeds]:
    repetitions = []
    for entry in raw if isinstance(raw, list) else [raw]:
        if isinstance(entry, bool) or not isinstance(entry, int | Mapping):
            raise InputError(
                f"{path}: a seed is a whole number, or split, train and unlearn; {entry!r} is "
                "neither."
            )
        try:
            repetitions.append(
                Seeds(entry, entry, entry) if isinstance(entry, int) else Seeds(**dict(entry))
            )
        except TypeError:
            raise InputError(
                f"{path}: a seed with parts needs split, train and unlearn; {entry} has others."
            ) from None
        parts = repetitions[-1].as_dict().values()
        if any(type(part) is int and not 0 <= part <= LARGEST_SEED for part in parts):
            raise InputError(
                f"{path}: the seed {shortened(entry)} is out of range; a seed is from 0 to "
                f"{LARGEST_SEED}."
            )
        if not all(type(part) is int for part in parts):
            raise InputError(
                f"{path}: the parts of a seed are whole numbers; those of {entry} are not."
            )
    if not repetitions:
        raise InputError(
            f"{path}: `seeds` is empty, so that nothing would run; give one seed a repetition."
        )
    if len(set(repetitions)) != len(repetitions):
        raise InputError(f"{path}: a seed stands twice in `seeds`.")
    return repetitions
