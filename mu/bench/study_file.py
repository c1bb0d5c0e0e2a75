"""Reading of study files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mu.bench.study import Seeds, Study
from mu.bench.study_checks import check_entries, check_names
from mu.bench.study_overrides import with_overrides
from mu.bench.study_schema import StudyFile, entries
from mu.config.classes import find
from mu.config.merge import merge
from mu.utils.errors import InputError
from mu.utils.shipped_files import find_config
from mu.utils.text_files import check_folder_name, file_fault, read_yaml


def read_study(
    path: str | Path, overrides: Mapping[str, Any] | Sequence[tuple[str, Any]] = ()
) -> Study:
    """Read and check a study file.

    Args:
        path: the YAML file, or the name of a configuration (`bench/quickstart`).
        overrides: values by key, written with dots: `methods.SalUn.trainer.max_epochs`.

    Raises:
        InputError: names the file, the key and what would be right.
    """
    path = _study_path(path)
    raw = read_yaml(path)
    if not isinstance(raw, Mapping):
        keys = ", ".join(entry.name for entry in entries(StudyFile))
        raise InputError(f"{path} is not a study: it should be a mapping with {keys}.")
    raw = with_overrides(
        path, raw, overrides.items() if isinstance(overrides, Mapping) else overrides
    )
    check_names(path, raw)
    check_entries(path, raw)
    study = _study(path, raw)
    _check_suites(path, study)
    return study


def _study_path(path: str | Path) -> Path:
    """The file itself, or the configuration of that name."""
    if file_fault(path) == "does not exist":
        path = find_config(path)
        if file_fault(path) == "does not exist":
            raise InputError(f"there is no study file {path}.")
    return Path(path)


def _study(path: Path, raw: Mapping[str, Any]) -> Study:
    """Study of checked entries."""
    name = raw.get("name") or path.stem
    if not raw.get("output"):
        check_folder_name(name, f"{path}: the name")
    return Study(
        name=name,
        output=Path(raw.get("output") or Path("runs") / name),
        seeds=_seeds(path, raw.get("seeds", [0])),
        backbone=_with_path(raw["backbone"]),
        recipe=raw.get("recipe") or {},
        tasks={key: _task(spec) for key, spec in raw["tasks"].items()},
        methods={key: _method(spec) for key, spec in raw["methods"].items()},
        suites=[_suite(suite) for suite in raw["suites"]],
        gap=_with_path(raw["gap"]) if raw.get("gap") else None,
        original=raw.get("original", "trained"),
        oracle=raw.get("oracle", "retrain"),
        title=raw.get("title") or name,
        trainer=raw.get("trainer") or {},
        search=raw.get("search") or {},
        threads=raw.get("threads"),
    )


def _check_suites(path: Path, study: Study) -> None:
    """Check that no task is measured twice by one suite with the same arguments."""
    for task in study.tasks:
        specs = [
            merge({"init_args": {}}, suite if isinstance(suite, Mapping) else {"class_path": suite})
            for suite in study.suites_of(task)
        ]
        twice = next((spec for spec in specs if specs.count(spec) > 1), None)
        if twice is not None:
            raise InputError(
                f"{path}: the suite {twice['class_path']} stands twice among those of task {task}; "
                "name it once."
            )


def _task(spec: Mapping[str, Any]) -> dict[str, Any]:
    task = _with_path(spec)
    if task.get("suites"):
        task["suites"] = [_suite(suite) for suite in task["suites"]]
    if task.get("methods"):
        task["methods"] = {name: _method(entry) for name, entry in task["methods"].items()}
    return task


def _method(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {**spec, "model": _with_path(spec["model"])} if spec.get("model") else dict(spec)


def _suite(spec: Any) -> Any:
    return _full_path(spec) if isinstance(spec, str) else _with_path(spec)


def _with_path(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A class with its full path, where its name alone was given."""
    return (
        {**spec, "class_path": _full_path(spec["class_path"])}
        if "class_path" in spec
        else dict(spec)
    )


def _full_path(path: str) -> str:
    """Path of a class of mu or a plugin; an unknown name stays for the check that follows."""
    if "." in path:
        return path
    from mu.utils.spec import class_path

    cls = find(path)
    return path if cls is None else class_path(cls)


def _seeds(path: Path, raw: Any) -> tuple[Seeds, ...]:
    """Repetitions of a study, each once."""
    repetitions = [
        Seeds(entry, entry, entry) if isinstance(entry, int) else Seeds(**entry)
        for entry in (raw if isinstance(raw, list) else [raw])
    ]
    if not repetitions:
        raise InputError(
            f"{path}: `seeds` is empty, so that nothing would run; give one seed a repetition."
        )
    if len(set(repetitions)) != len(repetitions):
        raise InputError(f"{path}: a seed stands twice in `seeds`.")
    return tuple(repetitions)
