"""Trials of a search, in an Optuna journal that many workers share."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mu.bench.claims import claim
from mu.bench.events import Outcome
from mu.bench.graph import job_graph
from mu.bench.objective import ObjectiveError, loss, objective_of, undefined_reasons
from mu.bench.runner import Bench, Work
from mu.bench.study import Job
from mu.config.components import merge
from mu.metrics.run_results import RunResults
from mu.utils.errors import InputError
from mu.utils.fingerprint import digest
from mu.utils.version import __version__

JOURNAL = "optuna.journal"
"""File of the trials in the folder of a search."""


@dataclass(frozen=True)
class Trial(Job):
    """Trial of a method's settings on a task: one run a seed of the search.

    Attributes:
        index: from 0.
    """

    index: int = 0

    @property
    def label(self) -> str:
        """Name of the trial for messages."""
        return f"{self.task} · {self.method} · trial {self.index + 1}"


class SearchBench(Bench):
    """Runner of the trials of a search, whose study measures the validation part.

    The trials are in an Optuna journal in the search's folder. A worker that dies leaves a trial
    that the next one takes up; a search that is called again goes on, and more trials may be asked
    for.
    """

    fatal = (ObjectiveError,)
    width: int = 1
    """Trials of one method at the same time; with one, no trial depends on the workers' speed."""

    @property
    def trials(self) -> int:
        """Number of trials of each method on each task."""
        return int(self.study.search.get("trials", 12))

    def spaces(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Search space by task and method."""
        specs = {
            (task, method): self.study.method_spec(task, method)
            for task in self.study.tasks
            for method in self.study.methods
        }
        return {
            pair: spec["search"]
            for pair, spec in specs.items()
            if spec.get("search") and not spec.get("skip")
        }

    def edges(self) -> dict[Job, list[Job]]:
        """Originals and oracles of the tasks that are searched, then the trials of every method."""
        spaces = self.spaces()
        tasks = {task for task, _ in spaces}
        references = {
            job: needed
            for job, needed in job_graph(self.study).items()
            if job.task in tasks and job.role in ("train", "oracle")
        }
        edges = dict(references)
        for task, method in spaces:
            trials = [self._trial(task, method, index) for index in range(self.trials)]
            for index, trial in enumerate(trials):
                before = trials[index - self.width] if index >= self.width else None
                of_task = [job for job in references if job.task == task]
                edges[trial] = of_task if before is None else [before]
        return edges

    def _trial(self, task: str, method: str, index: int) -> Trial:
        return Trial("trial", task, method, self.study.seeds[0], index)

    def begin(self, job: Job, wait: bool = False) -> Outcome | Work | None:
        """Claim of a trial, or of a run that trials need; see `Bench.begin`."""
        if isinstance(job, Trial):
            return self._guarded(job, lambda: self._begin_trial(job, wait))
        return super().begin(job, wait)

    def _begin_trial(self, job: Trial, wait: bool) -> Outcome | Work | None:
        lock = claim(self.study.output, f"{job.task}-{job.method}-trial{job.index + 1}", wait)
        if lock is None:
            return None
        try:
            trial = self._stored(job)
            if trial is not None and trial.state.is_finished():
                lock.release()
                reason = trial.user_attrs.get("reason", "")
                return Outcome(job, "failed" if reason else "reused", None, reason)
            trial_number, setting = self._ask(job) if trial is None else _asked(trial)
        except BaseException:
            lock.release()
            raise

        def work() -> Outcome:
            try:
                return self._guarded(job, lambda: self._try(job, trial_number, setting))
            finally:
                lock.release()

        return work

    # ---- the journal -----------------------------------------------------------------------------

    def optimiser(self, task: str, method: str, index: int = 0) -> Any:
        """Optuna's study of a method on a task, whose sampler draws for one trial.

        Args:
            task: the task.
            method: the method.
            index: of the trial; its draws depend on it and on the finished trials alone.
        """
        import numpy as np
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        entropy = [self.study.seeds[0].unlearn, index]
        sampler = optuna.samplers.TPESampler(
            seed=int(np.random.SeedSequence(entropy).generate_state(1)[0]),
            n_startup_trials=max(4, self.trials // 3),
        )
        return optuna.create_study(
            study_name=self._name(task, method),
            storage=self._storage(),
            sampler=sampler,
            direction="minimize",
            load_if_exists=True,
        )

    def _storage(self) -> Any:
        from optuna.storages.journal import JournalFileBackend, JournalStorage

        file = self.study.output / JOURNAL
        file.parent.mkdir(parents=True, exist_ok=True)
        lock: Any = _JournalLock(file)
        return JournalStorage(JournalFileBackend(str(file), lock_obj=lock))

    def _name(self, task: str, method: str) -> str:
        """Name of an Optuna study: other settings are another search."""
        study = self.study
        spec = study.method_spec(task, method)
        content = [
            study.task_spec(task),
            {key: value for key, value in spec.items() if key != "searched"},
            [study.backbone, study.recipe, study.trainer, study.original, study.oracle],
            [study.suites_of(task), study.gap, objective_of(study)],
            [entry.as_dict() for entry in study.seeds],
            study.weights,
            __version__,
        ]
        return f"{task}/{method}/{digest(content)}"

    def _stored(self, job: Trial) -> Any:
        """Optuna's record of a trial; None where it was never asked for."""
        trials = self.optimiser(job.task, job.method).get_trials(deepcopy=False)
        return next((t for t in trials if t.user_attrs.get("index") == job.index), None)

    def _ask(self, job: Trial) -> tuple[int, dict[str, Any]]:
        """Number and setting of a new trial."""
        trial = self.optimiser(job.task, job.method, job.index).ask()
        setting: dict[str, Any] = {}
        for name, limits in self.spaces()[job.task, job.method].items():
            setting = merge(setting, nested(name, suggest(trial, name, limits)))
        trial.set_user_attr("setting", setting)
        trial.set_user_attr("index", job.index)  # last: a trial without it is not looked at
        return trial.number, setting

    # ---- running ---------------------------------------------------------------------------------

    def _try(self, job: Trial, number: int, setting: dict[str, Any]) -> Outcome:
        """Run a trial for every seed, and record its loss, or why it has none."""
        import optuna

        outcomes = self._runs(job, setting)
        records = [RunResults.load(o.folder) for o in outcomes if o.folder is not None]
        reasons = [outcome.reason for outcome in outcomes if outcome.folder is None]
        objective = objective_of(self.study)
        reasons += [why for record in records for why in undefined_reasons(record, objective)]
        # a wrong objective is an error of the study, not of the trial
        value = (
            None if reasons else sum(loss(record, objective) for record in records) / len(records)
        )
        optimiser = self.optimiser(job.task, job.method)
        storage = self._storage()
        study_id = storage.get_study_id_from_name(optimiser.study_name)
        trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, number)
        seconds = sum(record.unlearning_seconds for record in records)
        storage.set_trial_user_attr(trial_id, "seconds", seconds)
        if value is None:  # a learning rate that diverges is an answer, not an accident
            reason = f"{setting}: {reasons[0]}"
            storage.set_trial_user_attr(trial_id, "reason", reason)
            optimiser.tell(number, state=optuna.trial.TrialState.FAIL)
            return Outcome(job, "failed", None, reason)
        optimiser.tell(number, value)
        return Outcome(job, "ran")

    def _runs(self, job: Trial, setting: dict[str, Any]) -> list[Outcome]:
        """Outcomes of a setting, one a seed."""
        study = self.study
        tried = merge(study.method_spec(job.task, job.method), {"model": {"init_args": setting}})
        task = {key: entry for key, entry in study.tasks[job.task].items() if key != "methods"}
        bench = copy(self)
        bench.study = replace(
            study,
            methods={**study.methods, job.method: tried},
            tasks={**study.tasks, job.task: task},
        )
        bench.planner = self.planner.for_study(bench.study)
        return [bench.run(Job("method", job.task, job.method, seed)) for seed in study.seeds]


class _JournalLock:
    """Lock of a journal file, which the system frees when its process ends."""

    def __init__(self, file: Path) -> None:
        from filelock import FileLock

        self._lock = FileLock(f"{file}.lock")

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Free the lock."""
        self._lock.release()


def _asked(trial: Any) -> tuple[int, dict[str, Any]]:
    """Number and setting of a trial whose worker has died."""
    return trial.number, trial.user_attrs["setting"]


def suggest(trial: Any, name: str, limits: Any) -> Any:
    """Value of an argument in a trial.

    Args:
        trial: Optuna's trial.
        name: of the argument.
        limits: its range: `low`, `high` and `log`, or `choices`.
    """
    if isinstance(limits, Mapping) and "choices" in limits:
        return trial.suggest_categorical(name, limits["choices"])
    if not isinstance(limits, Mapping) or "low" not in limits or "high" not in limits:
        raise InputError(
            f"the range of {name} is {limits!r}; write {{low: ..., high: ..., log: true}} or "
            f"{{choices: [...]}}."
        )
    low = limits["low"]
    high = limits["high"]
    log = bool(limits.get("log", False))
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=log)
    # as it will stand in the configuration
    return float(f"{trial.suggest_float(name, float(low), float(high), log=log):.4g}")


def nested(name: str, value: Any) -> dict[str, Any]:
    """`optimizer.lr` of an object with init_args: `{optimizer: {init_args: {lr: ...}}}`."""
    *outer, last = name.split(".")
    entry: Any = {last: value}
    for part in reversed(outer):
        entry = {part: {"init_args": entry}}
    return entry
