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
            listing = [name.strip() for name in names.split(",")]
            unknown = [name for name in listing if name not in entries]
            if unknown:
                raise InputError(
                    f"the study has no {noun} {unknown[0]!r}; it has {', '.join(entries)}."
                )
            repeated = next((name for name in listing if listing.count(name) > 1), None)
            if repeated is not None:
                raise InputError(f"--{noun}s names {repeated!r} twice; name each once.")
            return {name: entries[name] for name in listing}

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
