"""Execution of one run of a study: task, suites, fit and test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mu.bench.study import Job, Study
from mu.config.argument_types import argument_names, required
from mu.config.classes import find
from mu.config.components import Components, merge
from mu.config.trainer_values import missing_length
from mu.utils.errors import RunError
from mu.utils.progress import without_progress_bars
from mu.utils.quiet import quiet

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@dataclass(frozen=True)
class PlannedSuite:
    """Plan of a measurement.

    Attributes:
        spec: specification of the suite, with the oracle's folder where it takes one.
        key: reuse key of the measurement, inside its run.
        compared: keys of the measurements whose results it compares with the oracle's.
    """

    spec: Mapping[str, Any]
    key: str
    compared: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedRun:
    """Plan of a job: model, weights, folder, and what is measured.

    Attributes:
        job: the job.
        model: specification of the module, with its backbone.
        fit: whether it is fitted.
        test: whether it is tested.
        checkpoint: weights to test where nothing is fitted; None tests the backbone as it is built.
        start: hash of the weights that the backbone must hold when it is built; empty where any
            will do.
        spec: the study's entry of the method (`trainer`, `forget_batch_size`, `searched`).
        suites: what is measured.
        folder: the run folder.
        key: reuse key, a hash of everything that the weights depend on.
        resolved: the model with all defaults, without the path of the original's weights.
    """

    job: Job
    model: dict[str, Any]
    fit: bool = True
    test: bool = True
    checkpoint: Path | None = None
    start: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    suites: tuple[PlannedSuite, ...] = ()
    folder: Path = Path()
    key: str = ""
    resolved: Mapping[str, Any] = field(default_factory=dict)

    @property
    def last_checkpoint(self) -> Path:
        """Checkpoint of the fit, at its end or where it was cut off."""
        return self.folder / "checkpoints" / "last.ckpt"


def trainer_arguments(run: PlannedRun, study: Study) -> dict[str, Any]:
    """Arguments of a run's Trainer: the study's, then the method's or the recipe's.

    Where they give no end, the method's own default length is taken.
    """
    source = run.spec if run.job.role == "method" else study.recipe
    arguments = merge(study.trainer, source.get("trainer"))
    method: Any = find(run.model["class_path"])
    return {**arguments, **missing_length(arguments, method)}


def fit_and_test(
    run: PlannedRun,
    study: Study,
    components: Components,
    task: Any,
    resume: Path | None,
    on_fitted: Callable[[], None],
) -> None:
    """Fit a run in its folder, and measure it by all its suites.

    Args:
        run: the run.
        study: its study.
        components: parsers, which build module and suites.
        task: the run's task.
        resume: checkpoint where the fit resumes.
        on_fitted: called between fit and test.

    Raises:
        RunError: when the backbone does not hold the weights of the original that was measured.
        KeyboardInterrupt: when the fit was interrupted.
    """
    from mu.core.run_start import LastCheckpoint

    task = task_for_run(run, task)
    module = components.make("model", run.model)
    _check_start(run, module)
    callbacks = [
        *components.make("callbacks", trainer_arguments(run, study).get("callbacks") or []),
        *_callbacks(run, run.suites, components),
        LastCheckpoint(run.folder),
    ]
    trainer = _trainer(run, study, callbacks)
    path = str(resume) if resume else None
    trainer.fit(module, datamodule=task, ckpt_path=path, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    on_fitted()
    if run.test:
        trainer.test(module, datamodule=task, ckpt_path=None, verbose=False, weights_only=True)


def measure(
    run: PlannedRun,
    study: Study,
    components: Components,
    task: Any,
    suites: Sequence[PlannedSuite],
    checkpoint: Path | None,
) -> None:
    """Measure a run by some suites, without a fit.

    Args:
        run: the run.
        study: its study.
        components: parsers, which build module and suites.
        task: the run's task.
        suites: what is measured.
        checkpoint: its weights; None measures the backbone as it is built.
    """
    task = task_for_run(run, task)
    module = components.make("model", run.model)
    trainer = _trainer(run, study, _callbacks(run, suites, components))
    trainer.test(
        module,
        datamodule=task,
        ckpt_path=str(checkpoint) if checkpoint else None,
        verbose=False,
        weights_only=True,
    )


def _trainer(run: PlannedRun, study: Study, callbacks: list[Any]) -> Any:
    from lightning.pytorch import Trainer

    arguments = trainer_arguments(run, study)
    no_validation = (
        {}
        if {"limit_val_batches", "check_val_every_n_epoch"} & set(arguments)
        else {"limit_val_batches": 0}
    )
    return Trainer(
        **{
            **QUIET,
            "default_root_dir": str(run.folder),
            "callbacks": callbacks,
            "num_sanity_val_steps": 0,
            "accelerator": "auto",
            "devices": 1,
            **no_validation,
            **{name: value for name, value in arguments.items() if name != "callbacks"},
        }
    )


def task_for_run(run: PlannedRun, task: Any) -> Any:
    """The task, or a copy with the same data where the method has its own batch size."""
    batch_size = run.spec.get("forget_batch_size")
    if batch_size is None:
        return task
    task.setup()  # before it is copied, so that the data are read once
    task = copy(task)
    task.forget_batch_size = batch_size
    return task


def _check_start(run: PlannedRun, module: Any) -> None:
    from mu.utils.weights import weights_hash

    if run.start and weights_hash(module.backbone) != run.start:
        raise RunError(
            "its backbone does not hold the weights of the original that was measured, because it "
            "is built anew with others each time; a study with `original: given` needs a backbone "
            "with weights, or with an init_seed"
        )


def _callbacks(
    run: PlannedRun, suites: Sequence[PlannedSuite], components: Components
) -> list[Any]:
    """Suites and writers of a test."""
    from mu.config.plugins import default_callbacks

    specs = [suite.spec for suite in suites]
    specs = [*specs, *({"class_path": path} for path in default_callbacks())]
    callbacks = components.make("callbacks", specs)
    job = run.job
    facts = {"search": run.spec.get("searched")}
    for callback in callbacks:
        if hasattr(callback, "identify"):  # ResultsWriter records which run this is
            callback.identify(job.task, job.method, job.seeds.as_dict(), run.key, facts)
    return callbacks


def suite_spec(suite: Any) -> Mapping[str, Any]:
    """Specification of a suite, which may be written as a bare class path."""
    return suite if isinstance(suite, Mapping) else {"class_path": suite}


def takes_oracle(suite: Any) -> bool:
    """Whether a suite has an argument `oracle`, the oracle's run folder."""
    cls = find(str(suite_spec(suite).get("class_path")))
    return cls is not None and "oracle" in argument_names(cls)


def needs_oracle(suite: Any) -> bool:
    """Whether a suite cannot be built without an oracle."""
    cls = find(str(suite_spec(suite).get("class_path")))
    return cls is not None and "oracle" in required(cls)


def without_weights(model: dict[str, Any]) -> dict[str, Any]:
    """Specification of a module without the path of the original's weights.

    The reuse key has the hash of what the weights were made from instead.
    """
    arguments = model["init_args"]["backbone"].get("init_args") or {}
    return (
        merge(model, {"init_args": {"backbone": {"init_args": {"weights": None}}}})
        if "weights" in arguments
        else model
    )


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Set torch's number of threads for a while; None leaves it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def silent() -> Iterator[None]:
    """Silence Lightning's notices and the bars of suites, which would tear the progress display."""
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
        with quiet(), without_progress_bars():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
