"""Studies: YAML files of methods, tasks and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mu.config.components import merge
from mu.utils.errors import InputError

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

WEIGHTS = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin"})
"""Kinds of files that hold weights."""


@dataclass(frozen=True)
class Seeds:
    """The three seeds of a run: of the split, of the original's and the oracle's training, of the
    unlearning.
    """

    split: int
    train: int
    unlearn: int

    @property
    def label(self) -> str:
        """Name for folders: `seed3` when all are equal."""
        same = self.split == self.train == self.unlearn
        return f"seed{self.split}" if same else f"seed{self.split}-{self.train}-{self.unlearn}"

    def as_dict(self) -> dict[str, int]:
        """Seeds by name."""
        return {"split": self.split, "train": self.train, "unlearn": self.unlearn}


@dataclass(frozen=True)
class Job:
    """One run of the study.

    Attributes:
        role: `train` (the original), `original` (its evaluation on a task), `oracle` or `method`.
        task: name of the task; for `train`, the first task that has this training set.
        method: `original`, `oracle`, or the method's name.
        seeds: of this repetition.
    """

    role: str
    task: str
    method: str
    seeds: Seeds

    @property
    def label(self) -> str:
        """Name of the job for messages: task, method and seeds."""
        method = "training the original" if self.role == "train" else self.method
        return f"{self.task} · {method} · {self.seeds.label}"


@dataclass(frozen=True)
class Study:
    """Study that `mu bench` runs.

    Attributes:
        name: name of the study.
        output: folder of everything it writes.
        title: title of the report.
        seeds: one entry a repetition.
        backbone: specification of the model; without weights, unless it is the original as it
            stands.
        original: `trained` by the recipe, or `given`: the backbone with its own weights.
        oracle: `retrain` by the recipe without the forget set; `none`: then there is no gap; or
            init_args of the backbone that is the oracle already (`{model:
            embedded:authors_oracle}`).
        recipe: how original and oracle are trained: `model` (init_args of Train and Retrain) and
            `trainer`.
        tasks: specification by name; `methods` inside a task overrides methods there.
        methods: by name, `model` (a specification, whose `backbone` is merged over the study's) and
            `trainer`.
        suites: specifications of what is measured; `suites` inside a task are measured there beside
            them.
        gap: init_args of RetrainGap's stand-in named by the suites' package.
        trainer: arguments of every Trainer.
        search: how learning rates are searched.
        threads: torch's threads on a CPU; a small network is fastest on one. None leaves torch's
            choice.
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
    original: str = "trained"
    oracle: str | Mapping[str, Any] = "retrain"
    title: str = ""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None

    @property
    def trains_original(self) -> bool:
        """Whether the original is trained first."""
        return self.original == "trained"

    @property
    def has_oracle(self) -> bool:
        """Whether the study has a model retrained without the forget set."""
        return self.oracle != "none"

    @property
    def pretrained_oracle(self) -> dict[str, Any] | None:
        """Backbone with the oracle's weights, where the study names one."""
        return (
            merge(self.backbone, {"init_args": dict(self.oracle)})
            if isinstance(self.oracle, Mapping)
            else None
        )

    @cached_property
    def weights(self) -> dict[str, str]:
        """Hash of the weights that the backbone names, for reuse keys; empty where it has none."""
        named = (self.backbone.get("init_args") or {}).get("weights")
        return {"weights": content_hash(named)} if named else {}

    @property
    def rows(self) -> list[str]:
        """Rows of tables, in order: the reference models, then the methods."""
        return ["original", *(["oracle"] if self.has_oracle else []), *self.methods]

    def jobs(self) -> list[Job]:
        """Every run, behind the runs that it needs; methods with `skip` are left out."""
        jobs = []
        for seeds in self.seeds:
            for task in self.tasks:
                roles = [("train", "original")] if self.trains_original else []
                roles += [
                    *([("oracle", "oracle")] if self.has_oracle else []),
                    ("original", "original"),
                ]
                roles += [
                    ("method", name)
                    for name in self.methods
                    if not self.method_spec(task, name).get("skip")
                ]
                jobs += [Job(role, task, name, seeds) for role, name in roles]
        return jobs

    def only(self, tasks: str | None, methods: str | None) -> Study:
        """The study with these tasks and methods only (separated by commas; all where None)."""

        def select(noun: str, entries: Mapping[str, Any], names: str | None) -> dict[str, Any]:
            if names is None:
                return dict(entries)
            unknown = [name for name in names.split(",") if name not in entries]
            if unknown:
                raise InputError(
                    f"the study has no {noun} {unknown[0]!r}; it has {', '.join(entries)}."
                )
            return {name: entries[name] for name in names.split(",")}

        return replace(
            self,
            tasks=select("task", self.tasks, tasks),
            methods=select("method", self.methods, methods),
        )

    def task_spec(self, task: str) -> dict[str, Any]:
        """Specification of a task without its methods and suites."""
        return {
            key: value
            for key, value in self.tasks[task].items()
            if key not in ("methods", "suites")
        }

    def suites_of(self, task: str) -> list[Any]:
        """What is measured on a task: the study's suites and the task's own (a judge of shapes
        where a shape is erased).
        """
        return [*self.suites, *(self.tasks[task].get("suites") or [])]

    def method_spec(self, task: str, method: str) -> dict[str, Any]:
        """Specification of a method, merged with its overrides on a task."""
        return merge(self.methods[method], (self.tasks[task].get("methods") or {}).get(method))


def content_hash(path: str) -> str:
    """SHA-256 of a file, or of all files of weights in a folder: 16 hexadecimal digits.

    A name that is no path is returned as it is.
    """
    source = Path(path)
    if not source.exists():
        return path  # a name, which the backbone knows what to do with
    files = (
        [source]
        if source.is_file()
        else sorted(file for file in source.rglob("*") if file.suffix in WEIGHTS and file.is_file())
    )
    digest = hashlib.sha256()
    for file in files:
        digest.update(b"" if file == source else file.relative_to(source).as_posix().encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


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
        raise InputError(
            f"{path} is not a study: it should be a mapping with {', '.join(sorted(KEYS))}."
        )
    raw = merge(raw, overrides)
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
    name = str(raw.get("name") or path.stem)
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
        if not all(type(part) is int for part in repetitions[-1].as_dict().values()):
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
