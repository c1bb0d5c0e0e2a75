"""Runs of a report, collected from run folders and `study.json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mu.bench.report.variants import variant_labels
from mu.core.run_files import CHANGED, lacks_split, results_fault
from mu.metrics.run_results import RunResults, stale_results
from mu.utils.errors import InputError
from mu.utils.files import read_json
from mu.utils.run_layout import CHECKPOINT

ORIGINAL = "original"
ORACLE = "oracle"
SEED_NAMES = ("split", "train", "unlearn")
_REFERENCES = {"Train": ORIGINAL, "UnlearningModule": ORIGINAL, "Retrain": ORACLE}
_LEFT_OUT = "Left out:"
_SERVED = "mu.UnlearningModule"


@dataclass(eq=False)
class RunEntry:
    """One run folder.

    Attributes:
        folder: path of the run folder.
        name: path relative to the folder that is reported.
        record: content of results.json.
        values: value by metric: the run's results, to which gaps to the oracle are added.
        undefined: reason by metric that has no value on this run.
        variant: settings in which it differs from other runs of the same method; empty where there
            are none.
    """

    folder: Path
    name: str
    record: RunResults
    values: dict[str, float] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    variant: str = ""

    def __post_init__(self) -> None:
        results = self.record.results
        self.values = {
            result.metric: result.value for result in results if result.value is not None
        }
        self.undefined = {result.metric: result.undefined for result in results if result.undefined}
        # every run has its stages, with or without the suite that reports them
        if set(self.record.seconds) - {"evaluation"}:
            self.values.setdefault("seconds", self.record.unlearning_seconds)
        elif self.record.seconds:
            # a model that was only evaluated took no time that could be compared
            self.values.pop("seconds", None)

    @property
    def metrics(self) -> list[str]:
        """Metrics that the run has, undefined ones among them."""
        return [*self.values, *(name for name in self.undefined if name not in self.values)]

    @property
    def base_method(self) -> str:
        """Name of the method without its settings.

        Outside a study a run is named by its class, and `Train` is the original, `Retrain` the
        oracle.
        """
        name = self.record.method
        return name if self.of_study else _REFERENCES.get(name, name)

    @property
    def method(self) -> str:
        """Name of the method in tables, with the settings that tell its rows apart."""
        return f"{self.base_method} ({self.variant})" if self.variant else self.base_method

    @property
    def of_study(self) -> bool:
        """Whether `mu bench` ran it, which records the seed of the original's training."""
        return "train" in self.record.seeds

    @property
    def is_pretrained(self) -> bool:
        """Whether it measured pretrained weights, which no method of the study trained."""
        return self.record.facts.get("method_class") == _SERVED

    @property
    def label(self) -> str:
        """Label of the run's seeds: `seed3` when all are equal."""
        seeds = [str(self.record.seeds[name]) for name in SEED_NAMES if name in self.record.seeds]
        return "seed" + (seeds[0] if len(set(seeds)) == 1 else "-".join(seeds))

    @property
    def finished(self) -> float:
        """Time when results.json was written, in seconds since the epoch."""
        return (self.folder / "results.json").stat().st_mtime


@dataclass(frozen=True)
class MissingRun:
    """Run of a study that the report lacks.

    Attributes:
        label: task, method and seeds.
        reason: clause, why it is missing.
        has_earlier: whether the tables have a run of it from before.
    """

    label: str
    reason: str
    has_earlier: bool = False

    @property
    def sentence(self) -> str:
        """Reason, and what the tables have in its place."""
        reason = self.reason.rstrip(".")
        earlier = "; the tables show the run before it" if self.has_earlier else ""
        return f"{reason}{earlier}."


@dataclass
class TaskRuns:
    """Runs of one task.

    Attributes:
        name: name of the task.
        methods: runs by method: original and oracle first, then the methods in the study's order.
    """

    name: str
    methods: dict[str, list[RunEntry]]

    @property
    def runs(self) -> list[RunEntry]:
        """All runs of the task."""
        return [run for runs in self.methods.values() for run in runs]

    @property
    def oracles(self) -> list[RunEntry]:
        """Runs of the oracle, retrained without the forget set."""
        return self.methods.get(ORACLE, [])

    @property
    def originals(self) -> list[RunEntry]:
        """Runs that measured the model before unlearning."""
        return self.methods.get(ORIGINAL, [])


@dataclass
class Collection:
    """Runs and study facts that a report is made of.

    Attributes:
        title: title of the study, or the folder's name.
        commands: command lines of the studies.
        tasks: runs by task, in the study's order.
        missing: runs of the studies that failed, or have not run.
        notes: sentences on runs left out and gaps that could not be taken.
    """

    title: str = ""
    commands: list[str] = field(default_factory=list)
    tasks: list[TaskRuns] = field(default_factory=list)
    missing: list[MissingRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[RunEntry]:
        """All runs of all tasks."""
        return [run for task in self.tasks for run in task.runs]

    @property
    def date(self) -> str:
        """Time when the newest run finished, in UTC."""
        if not self.runs:
            return ""
        return datetime.fromtimestamp(max(run.finished for run in self.runs), UTC).strftime(
            "%Y-%m-%d %H:%M UTC"
        )


def collect(folders: Iterable[Path]) -> Collection:
    """Collect the runs below some folders.

    A folder with `study.json` gives the runs that are listed there and no stale ones; any other
    folder gives every run folder below it. Where two runs have the same task, method and seeds, the
    newer one counts and the other is noted.

    Raises:
        InputError: when a folder does not exist or nothing was run.
    """
    folders = list(folders)
    studies: list[dict[str, Any]] = []
    collection = Collection()
    runs: list[RunEntry] = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"there is no folder {folder}; name a study's folder, or one that holds run "
                "folders."
            )
        for is_study, path in _walk(folder, collection.notes):
            if is_study:
                studies.append(_study(path, runs, collection))
            else:
                name = path.relative_to(folder).as_posix() if path != folder else folder.name
                _add(runs, path, name, collection.notes)
    if (
        not runs
        and collection.notes
        and any(note.startswith(_LEFT_OUT) for note in collection.notes)
    ):
        raise InputError(" ".join(note for note in collection.notes if note.startswith(_LEFT_OUT)))
    if not runs and not collection.missing:
        raise InputError(
            f"there is no finished run in {', '.join(map(str, folders))}; a run is finished when "
            "it has been tested."
        )
    collection.title = " · ".join(dict.fromkeys(s["title"] for s in studies)) or " · ".join(
        f.resolve().name for f in folders
    )
    collection.commands = list(dict.fromkeys(s["command"] for s in studies if s.get("command")))
    _label_variants(runs)
    collection.tasks = _order(
        _newest(runs, collection.notes),
        [t for s in studies for t in s["tasks"]],
        [m for s in studies for m in s["methods"]],
    )
    return collection


def _add(runs: list[RunEntry], folder: Path, name: str, notes: list[str]) -> None:
    """Add the results of a run about the weights that it holds; notes about any others."""
    entries = RunResults.load_all(folder)
    current = RunResults.current(entries, folder)
    fault = CHANGED if current is None else results_fault(folder, current.hashes)
    if current is None or fault is not None:
        notes.append(
            f"{_LEFT_OUT} {name}, because {fault}; measure it again with mu test --run {folder}."
        )
        return
    if lacks_split(folder, current.hashes) and (folder / CHECKPOINT).is_file():
        notes.append(
            f"{name} has no split.json, so nothing shows which samples its results are about; "
            f"mu test --run {folder} writes it anew."
        )
    notes += [
        f"{name} also has {metrics} of other weights ({model}), which are not in the tables."
        for model, metrics in stale_results(entries, current).items()
    ]
    runs.append(RunEntry(folder, name, current))


def _walk(folder: Path, notes: list[str]) -> Iterator[tuple[bool, Path]]:
    """Studies and run folders below a folder, each with whether it is a study."""
    if (folder / "study.json").is_file():
        yield True, folder
    elif (folder / "results.json").is_file():
        yield False, folder
    else:
        for child in sorted(folder.iterdir()):
            if not child.is_dir() or child.name.startswith("."):
                continue
            # trials of a search are no results
            if child.name == "search" and any(child.rglob("results.json")):
                notes.append(
                    f"The trials of a search are not part of the tables; mu report {child} shows "
                    "them."
                )
                continue
            yield from _walk(child, notes)


def _study(folder: Path, runs: list[RunEntry], collection: Collection) -> dict[str, Any]:
    """Content of study.json; adds its runs, and those that it lacks."""
    file = folder / "study.json"
    index = read_json(file)
    try:
        for name, path in index["runs"].items():
            if (folder / path / "results.json").is_file():
                _add(runs, folder / path, path, collection.notes)
            else:
                absent = f"its folder {path} holds no results.json"
                collection.missing.append(MissingRun(_run_label(name), absent))
        for name, reason in index["missing"].items():
            earlier = name in index["runs"]
            collection.missing.append(MissingRun(_run_label(name), str(reason), earlier))
        return {
            "title": index["title"] or index["name"],
            "command": index["command"],
            "tasks": index["tasks"],
            "methods": index["methods"],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} was not written by this version of mu bench (it lacks {error})."
        ) from error


def _run_label(name: str) -> str:
    """Label of a run in study.json: `class · SSD · seed0`."""
    return name.replace("/", " · ")


def _label_variants(runs: Iterable[RunEntry]) -> None:
    """Tell runs of one method with different settings apart, so that each has a row."""
    groups: dict[tuple[str, str], list[RunEntry]] = {}
    for run in runs:
        if run.base_method not in (ORIGINAL, ORACLE):
            groups.setdefault((run.record.task, run.base_method), []).append(run)
    for group in groups.values():
        # a method that ends early has other epochs under each seed of a study
        labels = variant_labels(
            [run.record.facts for run in group], with_epochs=not any(run.of_study for run in group)
        )
        for run, label in zip(group, labels, strict=True):
            run.variant = label


def _newest(runs: Iterable[RunEntry], notes: list[str]) -> list[RunEntry]:
    newest: dict[tuple[Any, ...], RunEntry] = {}
    older: list[str] = []
    for run in sorted(runs, key=lambda run: run.finished):
        key = (run.record.task, run.method, tuple(sorted(run.record.seeds.items())))
        twin = newest.get(key)
        if twin is not None and twin.folder.resolve() != run.folder.resolve():
            older.append(twin.name)
        newest[key] = run
    if older:
        notes.append(
            "Left out, because a newer run has the same task, method, settings and seeds: "
            f"{', '.join(sorted(older))}."
        )
    return list(newest.values())


def _order(runs: Iterable[RunEntry], tasks: list[str], methods: list[str]) -> list[TaskRuns]:
    """Tasks and methods in the studies' order, the others behind them by name; runs by seeds."""
    runs = sorted(
        runs,
        key=lambda run: (
            run.record.task,
            run.method,
            [run.record.seeds.get(name, -1) for name in SEED_NAMES],
        ),
    )
    ranks = {
        name: rank
        for rank, name in enumerate(
            dict.fromkeys([ORIGINAL, ORACLE, *methods, *(run.base_method for run in runs)])
        )
    }
    bases = {run.method: run.base_method for run in runs}
    ordered = []
    for task in dict.fromkeys([*tasks, *(run.record.task for run in runs)]):
        of_task = [run for run in runs if run.record.task == task]
        names = sorted(
            dict.fromkeys(run.method for run in of_task), key=lambda name: ranks[bases[name]]
        )
        if of_task:
            methods_runs = {name: [run for run in of_task if run.method == name] for name in names}
            ordered.append(TaskRuns(task, methods_runs))
    return ordered
