"""Execution of one run of a study: reuse key, task, suites, fit and test."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mu.bench.study import Job, Study
from mu.config.argument_types import argument_names, required
from mu.config.classes import find
from mu.config.components import Components, merge
from mu.utils.errors import RunError
from mu.utils.files import read_json
from mu.utils.quiet import quiet
from mu.utils.version import __version__

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@dataclass(frozen=True)
class PlannedRun:
    """Plan of a job: model, weights, and what it is compared with.

    Attributes:
        job: the job.
        model: specification of the module, with its backbone.
        identity: hashes of what it starts from and is compared with.
        fit: whether it is fitted.
        test: whether it is tested.
        checkpoint: weights to test where nothing is fitted; None tests the backbone as it is built.
        start: hash of the weights that the backbone must hold when it is built; empty where any
            will do.
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


def trainer_arguments(run: PlannedRun, study: Study) -> dict[str, Any]:
    """Arguments of a run's Trainer: the study's, then the method's or the recipe's."""
    source = run.spec if run.job.role == "method" else study.recipe
    return merge(study.trainer, source.get("trainer"))


def run_key(
    run: PlannedRun,
    study: Study,
    components: Components,
    task: Any,
    resolved: Mapping[str, Any],
) -> str:
    """Hash of everything that a run's numbers depend on.

    Paths of the original and the oracle are replaced by what those were made from.

    Args:
        run: the run.
        study: its study.
        components: parsers, which resolve the task's defaults.
        task: the run's task.
        resolved: specification of the module with all defaults.
    """
    from mu.utils.fingerprint import digest, hash_user_sources, source_hash
    from mu.utils.spec import find_class

    job = run.job
    if run.test:
        identity = {
            "data": components.resolve("data", study.task_spec(job.task)),
            "seeds": job.seeds.as_dict(),
            "suites": [
                *study.suites_of(job.task),
                *([study.gap] if run.oracle and job.role == "method" else []),
            ],
            "forget_batch_size": run.spec.get("forget_batch_size"),
        }
    else:
        identity = {"data": task.recipe(), "seeds": job.seeds.train}
    suites = [suite_spec(suite) for suite in identity.get("suites", [])]
    user_sources = hash_user_sources(resolved, identity["data"], suites)
    return digest(
        {
            **identity,
            "model": resolved,
            "trainer": trainer_arguments(run, study),
            "mu": __version__,
            **run.identity,
            "sources": source_hash(find_class(run.model["class_path"])),
            **({"own": user_sources} if user_sources else {}),
        }
    )


def fit_and_test(
    run: PlannedRun,
    study: Study,
    components: Components,
    task: Any,
    folder: Path,
    key: str,
    checkpoint: Path | None,
) -> None:
    """Fit and test a run in its folder.

    Args:
        run: the run.
        study: its study.
        components: parsers, which build module and suites.
        task: the run's task.
        folder: the run folder.
        key: reuse key of the run.
        checkpoint: where the fit resumes, or the weights to test.

    Raises:
        RunError: when the backbone does not hold the weights of the original that was measured.
        KeyboardInterrupt: when the fit was interrupted.
    """
    from lightning.pytorch import Trainer

    task = task_for_run(run, task)
    module = components.make("model", run.model)
    _check_start(run, module)
    callbacks = _callbacks(run, study, components, folder, key)
    arguments = trainer_arguments(run, study)
    no_validation = (
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
            **no_validation,
            **arguments,
        }
    )
    path = str(checkpoint) if checkpoint else None
    if run.fit:
        trainer.fit(module, datamodule=task, ckpt_path=path, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
    if run.test:
        trainer.test(
            module,
            datamodule=task,
            ckpt_path=None if run.fit else path,
            verbose=False,
            weights_only=True,
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
    run: PlannedRun, study: Study, components: Components, folder: Path, key: str
) -> list[Any]:
    """Suites and writers of a test, and the checkpoint of a fit."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    suites = _suites(run, study, folder) if run.test else []
    callbacks = components.make("callbacks", suites) if suites else []
    job = run.job
    facts = {"search": run.spec.get("found")}
    for callback in callbacks:
        if hasattr(callback, "identify"):  # ResultsWriter records which run this is
            callback.identify(job.task, job.method, job.seeds.as_dict(), key, facts)
    if run.fit:
        callbacks.append(
            ModelCheckpoint(
                dirpath=folder / "checkpoints", filename="last", enable_version_counter=False
            )
        )
    return callbacks


def _suites(run: PlannedRun, study: Study, folder: Path) -> list[Any]:
    """Specifications of the suites of a test, RetrainGap and the default callbacks."""
    from mu.config.plugins import default_callbacks

    suites = [suite_spec(suite) for suite in study.suites_of(run.job.task)]
    # its own folder tells a suite that the run is the oracle
    oracle = folder if run.job.role == "oracle" else run.oracle
    if oracle is not None:
        suites = [
            merge({"init_args": {"oracle": str(oracle)}}, spec) if takes_oracle(spec) else spec
            for spec in suites
        ]
    if run.oracle is not None and study.gap and run.job.role == "method":
        suites.append(merge(study.gap, {"init_args": {"oracle": str(run.oracle)}}))
    return [*suites, *({"class_path": path} for path in default_callbacks())]


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


def run_state(folder: Path) -> dict[str, Any]:
    """Content of a run folder's run.json; empty without one."""
    return read_json(folder / "run.json") if (folder / "run.json").is_file() else {}


def key_of(folder: Path) -> str:
    """Reuse key of a run folder; empty without one."""
    return str(run_state(folder).get("key", ""))


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
    """Silence Lightning's notices too, which would tear the progress display; see `quiet`."""
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
