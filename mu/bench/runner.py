"""Runs of a study: reused when finished, resumed when cut off, claimed while they run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from mu.bench.claims import claim
from mu.bench.component_checks import check_components
from mu.bench.events import Outcome
from mu.bench.execution import (
    PlannedRun,
    fit_and_test,
    measure,
    silent,
    threads,
    trainer_arguments,
)
from mu.bench.graph import job_graph
from mu.bench.planning import Planner
from mu.bench.run_state import RunState
from mu.bench.study import Job, Seeds, Study
from mu.config.components import Components
from mu.core.run_files import checkpoint_fault
from mu.utils.errors import InputError

Work = Callable[[], Outcome]
"""What is left of a claimed job; it gives the outcome."""


class Bench:
    """Runner of the jobs of a study.

    Args:
        study: the study.
        components: shared parsers.
        debug: let errors through instead of counting the job as failed.
    """

    fatal: tuple[type[Exception], ...] = ()
    """Errors that are no outcome of one job: they end the study."""

    def __init__(
        self, study: Study, components: Components | None = None, debug: bool = False
    ) -> None:
        self.study = study
        self.components = components or Components()
        self.debug = debug
        self.planner = Planner(study, self.components)

    def task(self, name: str, seeds: Seeds) -> Any:
        """DataModule of a task under a split seed."""
        return self.planner.task(name, seeds)

    def check(self, with_search: bool = False) -> None:
        """Check that everything that the study names can be built, before anything has run.

        Args:
            with_search: check the ranges of the search too.

        Raises:
            InputError: names the first one that cannot.
        """
        check_components(self.study, self.components, with_search)

    # ---- running ---------------------------------------------------------------------------------

    def edges(self) -> dict[Job, list[Job]]:
        """Jobs in their serial order, each with the jobs that must end before it."""
        return job_graph(self.study)

    def run(self, job: Job) -> Outcome:
        """Run one job; an error is the job's outcome and does not stop other jobs.

        It waits while another process runs the same job.
        """
        work = self.begin(job, wait=True)
        assert work is not None
        return work if isinstance(work, Outcome) else work()

    def begin(self, job: Job, wait: bool = False) -> Outcome | Work | None:
        """Claim of a job's run.

        Args:
            job: the job, after those that it needs.
            wait: wait while another process holds the run.

        Returns:
            What is left to do, as a function that does it and gives the outcome; the outcome itself
            where nothing is left or the job failed; None where another process holds the run.
        """
        return self._guarded(job, lambda: self._begin(job, wait))

    def _begin(self, job: Job, wait: bool) -> Outcome | Work | None:
        run = self.planner.plan(job)
        if RunState.read(run).complete:
            return Outcome(job, "reused", run.folder)
        name = "-".join(run.folder.relative_to(self.study.output).parts)
        lock = claim(self.study.output, name, wait)
        if lock is None:
            return None
        if RunState.read(run).complete:
            lock.release()  # the process that held the claim has finished the run
            return Outcome(job, "reused", run.folder)

        def work() -> Outcome:
            try:
                return self._guarded(job, lambda: self._execute(run))
            finally:
                lock.release()

        return work

    def _guarded(self, job: Job, act: Callable[[], Any]) -> Any:
        """What a function returns, or the failed outcome of its error."""
        try:
            with silent(), threads(self.study.threads):
                return act()
        except Exception as error:
            if self.debug or isinstance(error, self.fatal):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            return Outcome(job, "failed", None, reason)

    def _execute(self, run: PlannedRun) -> Outcome:
        """Fit and measure a run in its folder, or do what is left of that."""
        # 1. what is there already
        folder = run.folder
        is_new = not folder.exists()
        before = RunState.read(run)
        # a process that is killed may leave half a file on some file systems
        has_checkpoint = run.fit and checkpoint_fault(run.last_checkpoint) is None
        account = {
            "job": run.job.label,
            "model": run.resolved,
            "trainer": trainer_arguments(run, self.study),
        }
        task = self.planner.task(run.job.task, run.job.seeds)
        # 2. what is left to do
        try:
            if run.fit and not (before.fitted and has_checkpoint):
                before.write("running", account)
                fit_and_test(
                    run,
                    self.study,
                    self.components,
                    task,
                    run.last_checkpoint if has_checkpoint else None,
                    on_fitted=lambda: before.write("fitted", account),
                )
                state = "resumed" if has_checkpoint else "ran"
            else:
                if not before.finished:
                    before.write("fitted" if run.fit else "running", account)
                checkpoint = run.last_checkpoint if run.fit else run.checkpoint
                suites = before.suites_to_measure()
                measure(run, self.study, self.components, task, suites, checkpoint)
                state = "measured" if before.fitted else "ran"
        except InputError:
            if is_new and not run.last_checkpoint.exists():  # a refused run leaves nothing
                shutil.rmtree(folder)
            raise
        # 3. the account of it
        before.write("finished", account, [suite.key for suite in run.suites])
        return Outcome(run.job, state, folder)
