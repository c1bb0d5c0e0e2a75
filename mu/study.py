"""A study: one YAML file that says which methods run on which tasks with which seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mu.components import merge
from mu.errors import InputError

KEYS = {"name", "output", "title", "seeds", "backbone", "recipe", "tasks", "methods", "suites", "gap", "trainer", "search", "threads"}
PAIR = {"model", "trainer", "forget_batch_size", "search", "found", "skip"}


@dataclass(frozen=True)
class Seeds:
    """The three seeds of a run: of the split, of the original's and the oracle's training, of the unlearning."""

    split: int
    train: int
    unlearn: int

    @property
    def label(self) -> str:
        """For folders: `seed3` when all are equal."""
        same = self.split == self.train == self.unlearn
        return f"seed{self.split}" if same else f"seed{self.split}-{self.train}-{self.unlearn}"

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return {"split": self.split, "train": self.train, "unlearn": self.unlearn}


@dataclass(frozen=True)
class Study:
    """What `mu bench` runs.

    Attributes:
        name: of the study.
        output: folder of everything it writes.
        title: for the report.
        seeds: one entry a repetition.
        backbone: specification of the model, without weights.
        recipe: how original and oracle are trained: `model` (init_args of Train and Retrain) and `trainer`.
        tasks: specification by name; `methods` inside a task overrides methods there.
        methods: by name, `model` (a specification without backbone) and `trainer`.
        suites: specifications of what is measured.
        gap: init_args of RetrainGap's stand-in named by the suites' package.
        trainer: arguments of every Trainer.
        search: how learning rates are searched.
        threads: torch's threads on a CPU; a small network is fastest on one. None leaves torch's choice.
    """

    name: str
    output: Path
    seeds: tuple[Seeds, ...]
    backbone: Mapping[str, Any]
    recipe: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Mapping[str, Any]]
    suites: list[Any]
    gap: Mapping[str, Any] | None = None
    title: str = ""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None

    def task_spec(self, task: str) -> dict[str, Any]:
        """The task alone, without what it says about methods."""
        return {key: value for key, value in self.tasks[task].items() if key != "methods"}

    def method_spec(self, task: str, method: str) -> dict[str, Any]:
        """The method as it runs on the task."""
        return merge(self.methods[method], (self.tasks[task].get("methods") or {}).get(method))


def read_study(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Study:
    """Read and check a study file.

    Args:
        path: the YAML file.
        overrides: merged over it.

    Raises:
        InputError: names the file, the key and what would be right.
    """
    import yaml

    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no study file {path}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(raw, Mapping):
        raise InputError(f"{path} is not a study: it should be a mapping with {', '.join(sorted(KEYS))}.")
    raw = merge(raw, overrides)
    unknown = sorted(set(raw) - KEYS)
    if unknown:
        raise InputError(f"{path} has the unknown key {unknown[0]!r}; a study has {', '.join(sorted(KEYS))}.")
    for key in ("backbone", "recipe", "tasks", "methods", "suites"):
        if not raw.get(key):
            raise InputError(f"{path} lacks {key!r}, which every study needs.")
        if not isinstance(raw[key], list if key == "suites" else Mapping):
            raise InputError(f"{path}: {key} should be a {'list' if key == 'suites' else 'mapping'}, not {raw[key]!r}.")
    name = str(raw.get("name") or path.stem)
    _check_methods(path, raw)
    return Study(
        name=name, output=Path(raw.get("output") or Path("runs") / name), seeds=tuple(_seeds(path, raw.get("seeds", [0]))),
        backbone=raw["backbone"], recipe=raw["recipe"], tasks=raw["tasks"], methods=raw["methods"], suites=raw["suites"],
        gap=raw.get("gap"), title=str(raw.get("title") or name), trainer=raw.get("trainer") or {}, search=raw.get("search") or {},
        threads=raw.get("threads"),
    )


def _check_methods(path: Path, raw: Mapping[str, Any]) -> None:
    for task, spec in raw["tasks"].items():
        if not isinstance(spec, Mapping) or not isinstance(spec.get("methods") or {}, Mapping):
            raise InputError(f"{path}: tasks.{task} should be a mapping with a class_path, and its methods one by name; it is {spec!r}.")
    inside = {f"tasks.{task}.methods": spec.get("methods") or {} for task, spec in raw["tasks"].items()}
    for where, methods in {"methods": raw["methods"], **inside}.items():
        for name, spec in methods.items():
            if name in ("original", "oracle"):
                raise InputError(f"{path}: {where}.{name} is a reserved name; original and oracle are trained by `recipe`.")
            if name not in raw["methods"]:
                raise InputError(f"{path}: {where}.{name} overrides a method that `methods` does not have.")
            if not isinstance(spec, Mapping):
                raise InputError(f"{path}: {where}.{name} should be a mapping with {', '.join(sorted(PAIR))}, not {spec!r}.")
            unknown = sorted(set(spec) - PAIR)
            if unknown:
                raise InputError(f"{path}: {where}.{name} has the unknown key {unknown[0]!r}; it has {', '.join(sorted(PAIR))}.")
    for name, spec in raw["methods"].items():
        if "class_path" not in (spec.get("model") or {}):
            raise InputError(f"{path}: methods.{name}.model needs a class_path.")


def _seeds(path: Path, raw: Any) -> list[Seeds]:
    found = []
    for entry in raw if isinstance(raw, list) else [raw]:
        if isinstance(entry, bool) or not isinstance(entry, int | Mapping):
            raise InputError(f"{path}: a seed is a whole number, or split, train and unlearn; {entry!r} is neither.")
        try:
            found.append(Seeds(entry, entry, entry) if isinstance(entry, int) else Seeds(**dict(entry)))
        except TypeError:
            raise InputError(f"{path}: a seed with parts needs split, train and unlearn; {entry} has others.") from None
        if not all(type(part) is int for part in found[-1].as_dict().values()):
            raise InputError(f"{path}: the parts of a seed are whole numbers; those of {entry} are not.")
    if not found:
        raise InputError(f"{path}: `seeds` is empty, so that nothing would run; give one seed a repetition.")
    if len(set(found)) != len(found):
        raise InputError(f"{path}: a seed stands twice in `seeds`.")
    return found
