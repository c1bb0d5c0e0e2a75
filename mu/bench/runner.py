"""A study's runs, one after the other, each reused when it is finished and resumed when it was cut
off.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mu.bench.study import Job, Seeds, Study
from mu.config.argument_types import argument_names
from mu.config.classes import find
from mu.config.components import Components, merge
from mu.utils.errors import RunError
from mu.utils.files import read_json, write_json
from mu.utils.quiet import quiet
from mu.utils.version import __version__

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `ran`, `resumed`, `reused` or `failed`, where, and why."""

    job: Job
    state: str
    folder: Path | None = None
    reason: str = ""


@dataclass(frozen=True)
class PlannedRun:
    """How a job is carried out.

    Attributes:
        job: which job.
        model: specification of the module, with its backbone.
        identity: hashes of what it starts from and is compared with.
        fit, test: what is to be done.
        checkpoint: weights to test where nothing is fitted; None tests the backbone as it is built.
        start: hash of the weights that the backbone must hold when it is built; empty where that is
            not known.
        oracle: the oracle's run folder, for the gap and for suites that take an `oracle`.
        spec: the study's entry of the method (`trainer`, `forget_batch_size`, `found`).
    """

    job: Job
    model: dict[str, Any]
    identity: dict[str, str]
    fit: bool = True
    test: bool = True
    checkpoint: Path | None = None
    start: str = ""
    oracle: Path | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)


class Bench:
    """Runs the jobs of a study.

    Args:
        study: the study.
        components: shared parsers.
        debug: let errors through instead of counting the job as failed.
    """

    def __init__(
        self, study: Study, components: Components | None = None, debug: bool = False
    ) -> None:
        self.study = study
        self.components = components or Components()
        self.debug = debug
        self.originals: dict[tuple[str, int], Path] = {}
        self.oracles: dict[tuple[str, Seeds], Path] = {}
        self._starts: dict[tuple[str, Seeds], str] = {}
        self._tasks: dict[tuple[str, int], Any] = {}

    def task(self, name: str, seeds: Seeds) -> Any:
        """The DataModule of a task under a split seed; kept, because building it reads the data."""
        key = (name, seeds.split)
        if key not in self._tasks:
            if len(self._tasks) >= 4:  # data of a few tasks at a time
                self._tasks.pop(next(iter(self._tasks)))
            spec = self.study.task_spec(name)
            cls = find(str(spec.get("class_path")))
            # prompts of two files are the same in every repetition
            if cls is None or "split_seed" in argument_names(cls):
                spec = merge(spec, {"init_args": {"split_seed": seeds.split}})
            self._tasks[key] = self.components.make("data", spec)
        return self._tasks[key]

    def check(self) -> None:
        """Refuse, before anything has run, a task, method or suite that cannot be built as it is
        written.

        Raises:
            InputError: names the first one.
        """
        study = self.study
        for task in study.tasks:
            self.components.resolve("data", study.task_spec(task))
            for suite in [*study.suites_of(task), *([study.gap] if study.gap else [])]:
                needed = {"init_args": {"oracle": "RUN"}} if _takes_oracle(suite) else {}
                self.components.resolve("callbacks", [merge(needed, _spec(suite))])
            for method in study.methods:
                spec = study.method_spec(task, method)
                self.components.resolve(
                    "model", merge({"init_args": {"backbone": study.backbone}}, spec["model"])
                )

    # ---- running ---------------------------------------------------------------------------------

    def run(self, job: Job) -> Outcome:
        """Run one job; whatever goes wrong is this job's outcome and does not stop the others."""
        try:
            with silent(), threads(self.study.threads):
                return {
                    "train": self._train,
                    "original": self._original,
                    "oracle": self._oracle,
                    "method": self._method,
                }[job.kind](job)
        except Exception as error:
            if self.debug:
                raise
            return Outcome(
                job, "failed", None, " ".join(str(error).split()) or type(error).__name__
            )

    def _train(self, job: Job) -> Outcome:
        task = self.task(job.task, job.seeds)
        known = (task.original_split.train_hash, job.seeds.train)
        if known in self.originals:
            return Outcome(job, "reused", self.originals[known])
        identity = {"train_split": task.original_split.train_hash, **self.study.weights}
        outcome = self._execute(
            PlannedRun(job, self._scratch("mu.methods.Train", job.seeds), identity, test=False)
        )
        if outcome.folder is not None:
            self.originals[known] = outcome.folder
        return outcome

    def _original(self, job: Job) -> Outcome:
        oracle = (
            self.oracles.get((job.task, job.seeds))
            if any(map(_takes_oracle, self.study.suites_of(job.task)))
            else None
        )
        identity = {
            "split": self.task(job.task, job.seeds).split.hash,
            **self._original_identity(job),
            **({"oracle": _key_of(oracle)} if oracle else {}),
        }
        if self.study.trains_original:
            checkpoint = self._original_folder(job) / "checkpoints" / "last.ckpt"
            trained = self._scratch("mu.methods.Train", job.seeds)
            return self._execute(
                PlannedRun(job, trained, identity, fit=False, checkpoint=checkpoint, oracle=oracle)
            )
        outcome = self._execute(
            PlannedRun(
                job,
                self._as_it_is(self.study.backbone, job.seeds),
                identity,
                fit=False,
                oracle=oracle,
            )
        )
        if outcome.folder is not None:
            from mu.metrics.results import RunResults

            self._starts[job.task, job.seeds] = RunResults.load(outcome.folder).hashes["original"]
        return outcome

    def _oracle(self, job: Job) -> Outcome:
        identity = {"split": self.task(job.task, job.seeds).split.hash, **self.study.weights}
        given = self.study.given_oracle
        if given is not None:
            outcome = self._execute(
                PlannedRun(job, self._as_it_is(given, job.seeds), identity, fit=False)
            )
        else:
            outcome = self._execute(
                PlannedRun(job, self._scratch("mu.methods.Retrain", job.seeds), identity)
            )
        if outcome.folder is not None:
            self.oracles[job.task, job.seeds] = outcome.folder
        return outcome

    def _method(self, job: Job) -> Outcome:
        spec = self.study.method_spec(job.task, job.method)
        oracle = self.oracles.get((job.task, job.seeds))
        if oracle is None and self.study.has_oracle:
            raise RunError("its oracle failed")
        end: dict[str, Any] = {"seed": job.seeds.unlearn}
        start = ""
        if self.study.trains_original:
            end["backbone"] = {"init_args": {"weights": str(self._original_folder(job))}}
        elif not (spec["model"].get("init_args") or {}).get("backbone"):
            # other arguments (LoRA) may change the set of weights
            start = self._starts.get((job.task, job.seeds), "")
        model = merge(
            {"init_args": {"backbone": self.study.backbone}}, spec["model"], {"init_args": end}
        )
        identity = {
            "split": self.task(job.task, job.seeds).split.hash,
            **self._original_identity(job),
            **({"oracle": _key_of(oracle)} if oracle else {}),
        }
        return self._execute(
            PlannedRun(job, model, identity, start=start, oracle=oracle, spec=spec)
        )

    @staticmethod
    def _as_it_is(backbone: Mapping[str, Any], seeds: Seeds) -> dict[str, Any]:
        """A module that only serves its backbone."""
        return {
            "class_path": "mu.UnlearningModule",
            "init_args": {"backbone": backbone, "seed": seeds.unlearn},
        }

    def _scratch(self, method: str, seeds: Seeds) -> dict[str, Any]:
        backbone = merge(self.study.backbone, {"init_args": {"init_seed": seeds.train}})
        own = {"class_path": method, "init_args": {"backbone": backbone, "seed": seeds.train}}
        return merge({"init_args": self.study.recipe.get("model") or {}}, own)

    def _original_identity(self, job: Job) -> dict[str, str]:
        """What the original is: the run that trained it, or the weights that the study's backbone
        names.
        """
        return (
            {"original": _key_of(self._original_folder(job))}
            if self.study.trains_original
            else self.study.weights
        )

    def _original_folder(self, job: Job) -> Path:
        found = self.originals.get(
            (self.task(job.task, job.seeds).original_split.train_hash, job.seeds.train)
        )
        if found is None:
            raise RunError("its original failed")
        return found

    def _execute(self, run: PlannedRun) -> Outcome:
        resolved = self.components.resolve("model", _portable(run.model))
        arguments = self._trainer_arguments(run)
        key = self._key(run, resolved, arguments)
        place = Path(run.job.task) / run.job.method if run.test else Path("originals")
        folder = self.study.output / place / f"{run.job.seeds.label}-{key[:8]}"
        state = _state(folder)
        if state.get("key") == key and state.get("state") == "finished":
            return Outcome(run.job, "reused", folder)
        last = folder / "checkpoints" / "last.ckpt"
        resumed = run.fit and last.is_file()
        account = {"key": key, "job": run.job.label, "model": resolved, "trainer": arguments}
        write_json(folder / "run.json", {**account, "state": "running"})
        self._fit_and_test(run, folder, arguments, key, last if resumed else run.checkpoint)
        write_json(folder / "run.json", {**account, "state": "finished"})
        return Outcome(run.job, "resumed" if resumed else "ran", folder)

    def _trainer_arguments(self, run: PlannedRun) -> dict[str, Any]:
        return merge(
            self.study.trainer,
            run.spec.get("trainer")
            if run.job.kind == "method"
            else self.study.recipe.get("trainer"),
        )

    def _key(
        self, run: PlannedRun, resolved: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> str:
        """What the run's numbers depend on; paths of the original and the oracle are replaced by
        what those were made from.
        """
        from mu.utils.fingerprint import digest, own_sources, source_hash
        from mu.utils.spec import find_class

        job = run.job
        task = self.task(run.job.task, run.job.seeds)
        own = (
            {
                "data": self.components.resolve("data", self.study.task_spec(job.task)),
                "seeds": job.seeds.as_dict(),
                "suites": [
                    *self.study.suites_of(job.task),
                    *([self.study.gap] if run.oracle and job.kind == "method" else []),
                ],
                "forget_batch_size": run.spec.get("forget_batch_size"),
            }
            if run.test
            else {"data": task.recipe(), "seeds": job.seeds.train}
        )
        theirs = own_sources(
            resolved, own["data"], [_spec(suite) for suite in own.get("suites", [])]
        )
        return digest(
            {
                **own,
                "model": resolved,
                "trainer": arguments,
                "mu": __version__,
                **run.identity,
                "sources": source_hash(find_class(run.model["class_path"])),
                **({"own": theirs} if theirs else {}),
            }
        )

    def _fit_and_test(
        self,
        run: PlannedRun,
        folder: Path,
        arguments: Mapping[str, Any],
        key: str,
        checkpoint: Path | None,
    ) -> None:
        from lightning.pytorch import Trainer
        from lightning.pytorch.callbacks import ModelCheckpoint

        from mu.utils.weights import weights_hash

        task = self._task_of(run)
        module = self.components.make("model", run.model)
        if run.start and weights_hash(module.backbone) != run.start:
            raise RunError(
                "its backbone does not hold the weights of the original that was measured, "
                "because it is built anew with others each time; a study with `original: given` "
                "needs a backbone with weights, or with an init_seed"
            )
        suites = self._suites(run, folder) if run.test else []
        callbacks = self.components.make("callbacks", suites) if suites else []
        for callback in callbacks:
            if hasattr(callback, "identify"):  # a recorder wants to know which run this is
                callback.identify(
                    run.job.task,
                    run.job.method,
                    run.job.seeds.as_dict(),
                    key,
                    {"search": run.spec.get("found")},
                )
        if run.fit:
            callbacks.append(
                ModelCheckpoint(
                    dirpath=folder / "checkpoints", filename="last", enable_version_counter=False
                )
            )
        curves = (
            {}
            if {"limit_val_batches", "check_val_every_n_epoch"} & set(arguments)
            else {"limit_val_batches": 0}
        )
        trainer = Trainer(
            **{
                **QUIET,
                "default_root_dir": str(folder),
                "callbacks": callbacks,
                "num_sanity_val_steps": 0,
                "accelerator": "auto",
                "devices": 1,
                **curves,
                **arguments,
            }
        )
        resumed = str(checkpoint) if checkpoint else None
        if run.fit:
            trainer.fit(module, datamodule=task, ckpt_path=resumed, weights_only=True)
            if trainer.interrupted:
                raise KeyboardInterrupt
        if run.test:
            trainer.test(
                module,
                datamodule=task,
                ckpt_path=None if run.fit else resumed,
                verbose=False,
                weights_only=True,
            )

    def _task_of(self, run: PlannedRun) -> Any:
        """The run's task: the shared one, or a copy of it (with the same data) where the method has
        a batch size of its own.
        """
        task = self.task(run.job.task, run.job.seeds)
        own = run.spec.get("forget_batch_size")
        if own is None:
            return task
        task.setup()  # before it is copied, so that the data are read once
        task = copy(task)
        task.forget_batch_size = own
        return task

    def _suites(self, run: PlannedRun, folder: Path) -> list[Any]:
        from mu.config.plugins import default_callbacks

        suites = [_spec(suite) for suite in self.study.suites_of(run.job.task)]
        # its own folder tells a suite that the run is the oracle
        oracle = folder if run.job.kind == "oracle" else run.oracle
        if oracle is not None:
            suites = [
                merge({"init_args": {"oracle": str(oracle)}}, spec) if _takes_oracle(spec) else spec
                for spec in suites
            ]
        if run.oracle is not None and self.study.gap and run.job.kind == "method":
            suites.append(merge(self.study.gap, {"init_args": {"oracle": str(run.oracle)}}))
        return [*suites, *({"class_path": path} for path in default_callbacks())]


def _spec(suite: Any) -> Mapping[str, Any]:
    """A suite, which may be written as its bare path."""
    return suite if isinstance(suite, Mapping) else {"class_path": suite}


def _takes_oracle(suite: Any) -> bool:
    """Whether a suite compares with the oracle's own record."""
    cls = find(str(_spec(suite).get("class_path")))
    return cls is not None and "oracle" in argument_names(cls)


def _portable(model: dict[str, Any]) -> dict[str, Any]:
    """The specification without the path of the original's weights, which the key names by what
    they are.
    """
    arguments = model["init_args"]["backbone"].get("init_args") or {}
    return (
        merge(model, {"init_args": {"backbone": {"init_args": {"weights": None}}}})
        if "weights" in arguments
        else model
    )


def _state(folder: Path) -> dict[str, Any]:
    return read_json(folder / "run.json") if (folder / "run.json").is_file() else {}


def _key_of(folder: Path) -> str:
    return str(_state(folder).get("key", ""))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads for torch, where the study says how many."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def silent() -> Iterator[None]:
    """As `quiet`, and Lightning's notices are kept back too: they would tear the progress
    display.
    """
    loggers = [
        logging.getLogger(name)
        for name in (
            "lightning.pytorch",
            "lightning.fabric",
            "lightning.pytorch.utilities.rank_zero",
        )
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with quiet():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
