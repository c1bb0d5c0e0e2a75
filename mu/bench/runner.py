"""Runs of a study, one after the other: reused when finished, resumed when cut off."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mu.bench.events import Outcome
from mu.bench.execution import (
    PlannedRun,
    fit_and_test,
    key_of,
    needs_oracle,
    run_key,
    run_state,
    silent,
    suite_spec,
    takes_oracle,
    threads,
    trainer_arguments,
    without_weights,
)
from mu.bench.study import Job, Seeds, Study
from mu.config.argument_types import argument_names
from mu.config.classes import find
from mu.config.components import Components, merge
from mu.config.trainer_values import check_fit, check_names
from mu.utils.errors import InputError, RunError
from mu.utils.files import write_json
from mu.utils.text_files import check_new_folder


def _check_trainer(common: Mapping[str, Any], further: Any, prefix: str) -> None:
    check_names(common, "trainer.")
    check_names(further or {}, prefix)
    check_fit(merge(common, further), prefix)


class Bench:
    """Runner of the jobs of a study.

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
        """DataModule of a task under a split seed; cached, because building it reads the data."""
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
        """Check that every task, method and suite can be built, before anything has run.

        A suite also says whether what it needs is there: packages, judges, files.

        Raises:
            InputError: names the first one that cannot.
        """
        study = self.study
        check_new_folder(study.output, "the output folder")
        _check_trainer(study.trainer, study.recipe.get("trainer"), "recipe.trainer.")
        for task in study.tasks:
            self.components.resolve("data", study.task_spec(task))
            for suite in [*study.suites_of(task), *([study.gap] if study.gap else [])]:
                needed = {"init_args": {"oracle": "RUN"}} if needs_oracle(suite) else {}
                for callback in self.components.make(
                    "callbacks", [merge(needed, suite_spec(suite))]
                ):
                    if hasattr(callback, "check"):
                        callback.check()
            for method in study.methods:
                spec = study.method_spec(task, method)
                _check_trainer(study.trainer, spec.get("trainer"), f"methods.{method}.trainer.")
                self.components.resolve(
                    "model", merge({"init_args": {"backbone": study.backbone}}, spec["model"])
                )

    # ---- running ---------------------------------------------------------------------------------

    def run(self, job: Job) -> Outcome:
        """Run one job; an error is the job's outcome and does not stop other jobs."""
        try:
            with silent(), threads(self.study.threads):
                return {
                    "train": self._train,
                    "original": self._original,
                    "oracle": self._oracle,
                    "method": self._method,
                }[job.role](job)
        except Exception as error:
            if self.debug:
                raise
            return Outcome(
                job, "failed", None, " ".join(str(error).split()) or type(error).__name__
            )

    def _train(self, job: Job) -> Outcome:
        task = self.task(job.task, job.seeds)
        key = (task.original_split.train_hash, job.seeds.train)
        if key in self.originals:
            return Outcome(job, "reused", self.originals[key])
        identity = {"train_split": task.original_split.train_hash, **self.study.weights}
        outcome = self._execute(
            PlannedRun(job, self._untrained("mu.methods.Train", job.seeds), identity, test=False)
        )
        if outcome.folder is not None:
            self.originals[key] = outcome.folder
        return outcome

    def _original(self, job: Job) -> Outcome:
        oracle = (
            self.oracles.get((job.task, job.seeds))
            if any(map(takes_oracle, self.study.suites_of(job.task)))
            else None
        )
        identity = {
            "split": self.task(job.task, job.seeds).split.hash,
            **self._original_identity(job),
            **({"oracle": key_of(oracle)} if oracle else {}),
        }
        if self.study.trains_original:
            checkpoint = self._original_folder(job) / "checkpoints" / "last.ckpt"
            trained = self._untrained("mu.methods.Train", job.seeds)
            return self._execute(
                PlannedRun(job, trained, identity, fit=False, checkpoint=checkpoint, oracle=oracle)
            )
        outcome = self._execute(
            PlannedRun(
                job,
                self._pretrained(self.study.backbone, job.seeds),
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
        oracle = self.study.pretrained_oracle
        if oracle is not None:
            outcome = self._execute(
                PlannedRun(job, self._pretrained(oracle, job.seeds), identity, fit=False)
            )
        else:
            outcome = self._execute(
                PlannedRun(job, self._untrained("mu.methods.Retrain", job.seeds), identity)
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
            **({"oracle": key_of(oracle)} if oracle else {}),
        }
        return self._execute(
            PlannedRun(job, model, identity, start=start, oracle=oracle, spec=spec)
        )

    @staticmethod
    def _pretrained(backbone: Mapping[str, Any], seeds: Seeds) -> dict[str, Any]:
        """Specification of a module that only serves its backbone."""
        return {
            "class_path": "mu.UnlearningModule",
            "init_args": {"backbone": backbone, "seed": seeds.unlearn},
        }

    def _untrained(self, method: str, seeds: Seeds) -> dict[str, Any]:
        backbone = merge(self.study.backbone, {"init_args": {"init_seed": seeds.train}})
        model = {"class_path": method, "init_args": {"backbone": backbone, "seed": seeds.train}}
        return merge({"init_args": self.study.recipe.get("model") or {}}, model)

    def _original_identity(self, job: Job) -> dict[str, str]:
        """Key of the run that trained the original, or hash of the backbone's weights."""
        return (
            {"original": key_of(self._original_folder(job))}
            if self.study.trains_original
            else self.study.weights
        )

    def _original_folder(self, job: Job) -> Path:
        folder = self.originals.get(
            (self.task(job.task, job.seeds).original_split.train_hash, job.seeds.train)
        )
        if folder is None:
            raise RunError("its original failed")
        return folder

    def _execute(self, run: PlannedRun) -> Outcome:
        """Reuse a finished run of the same key, or fit and test in its folder."""
        job = run.job
        task = self.task(job.task, job.seeds)
        resolved = self.components.resolve("model", without_weights(run.model))
        key = run_key(run, self.study, self.components, task, resolved)
        parent = Path(job.task) / job.method if run.test else Path("originals")
        folder = self.study.output / parent / f"{job.seeds.label}-{key[:8]}"
        state = run_state(folder)
        if state.get("key") == key and state.get("state") == "finished":
            return Outcome(job, "reused", folder)
        is_new = not folder.exists()
        last = folder / "checkpoints" / "last.ckpt"
        resumed = run.fit and last.is_file()
        account = {
            "key": key,
            "job": job.label,
            "model": resolved,
            "trainer": trainer_arguments(run, self.study),
        }
        write_json(folder / "run.json", {**account, "state": "running"})
        checkpoint = last if resumed else run.checkpoint
        try:
            fit_and_test(run, self.study, self.components, task, folder, key, checkpoint)
        except InputError:
            if is_new and not last.exists():  # a refused run leaves nothing
                shutil.rmtree(folder)
            raise
        write_json(folder / "run.json", {**account, "state": "finished"})
        return Outcome(job, "resumed" if resumed else "ran", folder)
