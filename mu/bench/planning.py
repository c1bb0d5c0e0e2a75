"""Plans of the jobs of a study: model, folder and reuse key, derived from its file alone."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from mu.bench.execution import (
    PlannedRun,
    PlannedSuite,
    suite_spec,
    takes_oracle,
    trainer_arguments,
    without_weights,
)
from mu.bench.run_keys import (
    SuiteIdentity,
    measurement_keys,
    providers,
    run_key,
    suite_identity,
    training_data,
    with_numbers,
    without_numbers,
)
from mu.bench.run_state import is_finished
from mu.bench.study import Job, Seeds, Study
from mu.config.argument_types import argument_names
from mu.config.classes import find
from mu.config.components import Components, merge
from mu.utils.errors import RunError
from mu.utils.fingerprint import digest

TASKS_AT_A_TIME = 4
"""Tasks whose data are kept in memory."""

ORIGINALS = "originals"
"""Folder of the trained originals, which tasks with one training set share."""


class Planner:
    """Plans of jobs, the same in every process that reads the study.

    Args:
        study: the study.
        components: shared parsers.
    """

    def __init__(self, study: Study, components: Components) -> None:
        self.study = study
        self.components = components
        self._tasks: dict[tuple[str, int], Any] = {}
        self._references: dict[Job, PlannedRun] = {}
        self._splits: dict[tuple[str, int], tuple[str, str, Any]] = {}
        self._resolved: dict[str, tuple[Any, Any]] = {}
        self._suites: dict[str, SuiteIdentity] = {}

    def for_study(self, study: Study) -> Planner:
        """Planner of a study with other methods, which shares data, originals and oracles."""
        planner = copy(self)
        planner.study = study
        return planner

    # ---- data ------------------------------------------------------------------------------------

    def task(self, name: str, seeds: Seeds) -> Any:
        """DataModule of a task under a split seed; cached, because building it reads the data."""
        key = (name, seeds.split)
        if key not in self._tasks:
            if len(self._tasks) >= TASKS_AT_A_TIME:
                self._tasks.pop(next(iter(self._tasks)))
            spec = self.study.task_spec(name)
            cls = find(str(spec.get("class_path")))
            # prompts of two files are the same in every repetition
            if cls is None or "split_seed" in argument_names(cls):
                spec = merge(spec, {"init_args": {"split_seed": seeds.split}})
            self._tasks[key] = self.components.make("data", spec)
        return self._tasks[key]

    def _split(self, job: Job) -> tuple[str, str, Any]:
        """Hashes of a task's split and of the original's training set, and its recipe."""
        key = (job.task, job.seeds.split)
        if key not in self._splits:
            task = self.task(job.task, job.seeds)
            self._splits[key] = (task.split.hash, task.original_split.train_hash, task.recipe())
        return self._splits[key]

    # ---- plans -----------------------------------------------------------------------------------

    def plan(self, job: Job) -> PlannedRun:
        """Plan of a job.

        Raises:
            RunError: when a run that it needs has failed, or was never made.
            InputError: when its model or its task cannot be built.
        """
        if job.role == "method":
            return self._method(job)
        if job not in self._references:
            plans = {"train": self._train, "original": self._original, "oracle": self._oracle}
            self._references[job] = plans[job.role](job)
        return self._references[job]

    def reference(self, role: str, job: Job) -> PlannedRun:
        """Plan of the original or oracle of a job's task and seeds."""
        method = "oracle" if role == "oracle" else "original"
        return self.plan(Job(role, job.task, method, job.seeds))

    def finished(self, role: str, job: Job) -> PlannedRun:
        """The same, where that run is finished.

        Raises:
            RunError: when it is not.
        """
        run = self.reference(role, job)
        if not is_finished(run.folder, run.key):
            raise RunError(f"its {run.job.method} failed")
        return run

    def _train(self, job: Job) -> PlannedRun:
        _, train_split, recipe = self._split(job)
        model = self._untrained("mu.methods.Train", job.seeds)
        run = PlannedRun(job, model, fit=True, test=False)
        identity = {
            "seeds": job.seeds.train,
            "train_split": train_split,
            **self.study.weights,
        }
        # tasks with one training set find the same folder, whatever their other seeds
        label = f"seed{job.seeds.train}"
        return self._with_key(run, identity, recipe, Path(ORIGINALS), label)

    def _original(self, job: Job) -> PlannedRun:
        if self.study.trains_original:
            trained = self.reference("train", job)
            run = PlannedRun(
                job,
                trained.model,
                fit=False,
                checkpoint=trained.folder / "checkpoints" / "last.ckpt",
            )
            identity = {"original": trained.key}
        else:
            run = PlannedRun(job, self._pretrained(self.study.backbone, job.seeds), fit=False)
            identity = dict(self.study.weights)
        return self._measured(run, identity)

    def _oracle(self, job: Job) -> PlannedRun:
        pretrained = self.study.pretrained_oracle
        if pretrained is not None:
            run = PlannedRun(job, self._pretrained(pretrained, job.seeds), fit=False)
        else:
            run = PlannedRun(job, self._untrained("mu.methods.Retrain", job.seeds))
        return self._measured(run, dict(self.study.weights))

    def _method(self, job: Job) -> PlannedRun:
        spec = self.study.method_spec(job.task, job.method)
        end: dict[str, Any] = {"seed": job.seeds.unlearn}
        if self.study.trains_original:
            original = self.finished("train", job)
            end["backbone"] = {"init_args": {"weights": str(original.folder)}}
            identity = {"original": original.key}
        else:
            identity = dict(self.study.weights)
        model = merge(
            {"init_args": {"backbone": self.study.backbone}}, spec["model"], {"init_args": end}
        )
        run = PlannedRun(job, model, start=self._start(job, spec), spec=spec)
        return self._measured(run, identity)

    def _start(self, job: Job, spec: Mapping[str, Any]) -> str:
        """Hash of the pretrained original's weights, which the method must begin from."""
        # other arguments (LoRA) may change the set of weights
        changed = (spec["model"].get("init_args") or {}).get("backbone")
        if self.study.trains_original or changed:
            return ""
        from mu.metrics.run_results import RunResults

        original = self.reference("original", job)
        if not is_finished(original.folder, original.key):
            return ""
        return RunResults.load(original.folder).hashes["original"]

    def _pretrained(self, backbone: Mapping[str, Any], seeds: Seeds) -> dict[str, Any]:
        """Specification of a module that only serves its backbone."""
        return {
            "class_path": "mu.UnlearningModule",
            "init_args": {"backbone": backbone, "seed": seeds.unlearn},
        }

    def _untrained(self, method: str, seeds: Seeds) -> dict[str, Any]:
        backbone = merge(self.study.backbone, {"init_args": {"init_seed": seeds.train}})
        model = {"class_path": method, "init_args": {"backbone": backbone, "seed": seeds.train}}
        return merge({"init_args": self.study.recipe.get("model") or {}}, model)

    # ---- keys ------------------------------------------------------------------------------------

    def _measured(self, run: PlannedRun, identity: Mapping[str, Any]) -> PlannedRun:
        """A run with its key and the suites that measure it."""
        job = run.job
        data = self._resolve("data", self.study.task_spec(job.task))
        split, _, _ = self._split(job)
        identity = {
            **identity,
            "seeds": job.seeds.as_dict(),
            "split": split,
            "forget_batch_size": run.spec.get("forget_batch_size"),
        }
        parent = Path(job.task) / job.method
        run = self._with_key(run, identity, training_data(data), parent, job.seeds.label)
        return replace(run, suites=self._planned_suites(run, data))

    def _with_key(
        self, run: PlannedRun, identity: Mapping[str, Any], data: Any, parent: Path, label: str
    ) -> PlannedRun:
        resolved = self._resolve("model", without_weights(run.model))
        key = run_key(resolved, data, trainer_arguments(run, self.study), identity)
        folder = self.study.output / parent / f"{label}-{key[:8]}"
        return replace(run, key=key, folder=folder, resolved=resolved)

    def _planned_suites(self, run: PlannedRun, data: Mapping[str, Any]) -> tuple[PlannedSuite, ...]:
        """Suites of a run, with the oracle's folder and the keys of their measurements."""
        job = run.job
        specs = [suite_spec(suite) for suite in self.study.suites_of(job.task)]
        oracle: PlannedRun | None = None
        if self.study.has_oracle and job.role == "method":
            oracle = self.finished("oracle", job)
            specs += [self.study.gap] if self.study.gap else []
        elif job.role == "oracle":
            oracle = run  # its own folder tells a suite that the run is the oracle
        elif self.study.has_oracle and any(map(takes_oracle, specs)):
            oracle = self.reference("oracle", job)
            oracle = oracle if is_finished(oracle.folder, oracle.key) else None
        takes = [oracle is not None and takes_oracle(spec) for spec in specs]
        identities = [self._suite(*pair) for pair in zip(specs, takes, strict=True)]
        trainer = trainer_arguments(run, self.study)
        keys = measurement_keys(identities, data, trainer, oracle.key if oracle else "")
        folder = {"init_args": {"oracle": str(oracle.folder)}} if oracle else {}
        return tuple(
            PlannedSuite(
                merge(folder, spec) if takes_folder else spec,
                key,
                tuple(keys[index] for index in providers(identity, identities)),
            )
            for spec, takes_folder, key, identity in zip(
                specs, takes, keys, identities, strict=True
            )
        )

    def _suite(self, spec: Mapping[str, Any], oracle: bool) -> SuiteIdentity:
        name = digest([spec, oracle])
        if name not in self._suites:
            self._suites[name] = suite_identity(spec, oracle, self.components)
        return self._suites[name]

    def _resolve(self, section: str, spec: Mapping[str, Any]) -> Any:
        """Specification with all defaults; those between which only numbers differ share a parse.

        A repetition has other seeds, a task other learning rates, and a parse takes 80 ms.
        """
        name = digest([section, without_numbers(spec)])
        if name not in self._resolved:
            self._resolved[name] = (spec, self.components.resolve(section, spec))
        parsed_spec, resolved = self._resolved[name]
        if parsed_spec == spec:
            return resolved
        try:
            return with_numbers(resolved, spec)
        except LookupError:
            return self.components.resolve(section, spec)
