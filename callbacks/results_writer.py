"""Callback that writes the run folder of a fit and of a test."""

from __future__ import annotations

import inspect
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks import default_callbacks
from callbacks.base import Suite, module_of, presentation_of, run_folder
from mu.core.module import UnlearningModule
from mu.core.pretrained_model import PretrainedModel
from mu.core.run_start import (
    add_last_checkpoint,
    check_folder,
    check_resumed,
    config_of,
    finished_fit,
    write_files,
    write_finish,
    write_start,
)
from mu.metrics.run_outputs import load_outputs, save_outputs
from mu.metrics.run_results import Measurement, RunResults, versions
from mu.utils.checksums import checkpoint_digest
from mu.utils.errors import InputError
from mu.utils.fingerprint import digest, source_hash
from mu.utils.run_config import SETTINGS, config_line
from mu.utils.run_layout import CHECKPOINT, FIT, OUTPUTS, RESULTS, SPLIT
from mu.utils.spec import Reconstructible, class_path, to_spec
from mu.utils.weights import weights_hash


class ResultsWriter(Callback, Reconstructible):
    """Writer of the run folder of a fit and of a test.

    The run folder is the trainer's default_root_dir. A fit writes `config.yaml`, `base/` and
    `split.json` before its first step, `checkpoints/last.ckpt` after every epoch, and `fit.json` at
    its end; a test writes `results.json` and `outputs.safetensors` after every suite, for any order
    of the callbacks.

    Args:
        task: the task's name in a study; its class when None.
        method: the method's name in a study; its class when None.
        seeds: the run's seeds; taken from task and method when None.
        key: reuse key of a study.
        facts: further facts about the run.
    """

    def __init__(
        self,
        task: str | None = None,
        method: str | None = None,
        seeds: dict[str, int] | None = None,
        key: str = "",
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.task = task
        self.method = method
        self.seeds = seeds
        self.key = key
        self.facts = facts or {}

    def identify(
        self, task: str, method: str, seeds: dict[str, int], key: str, facts: dict[str, Any]
    ) -> None:
        """Set the names, seeds and key of the run; called by a study."""
        self.task = task
        self.method = method
        self.seeds = seeds
        self.key = key
        self.facts = {**self.facts, **{name: value for name, value in facts.items() if value}}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the files that are there, and let a fit write its last checkpoint.

        Raises:
            InputError: names a file that was changed or cut off, or is of something else.
        """
        folder = run_folder(trainer)
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            if not _is_written(trainer):
                check_folder(trainer)
            add_last_checkpoint(trainer)
        if stage == "test" and trainer.is_global_zero:
            if (folder / RESULTS).exists():
                RunResults.load_all(folder)
            if (folder / OUTPUTS).exists():
                load_outputs(folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write config.yaml, base models and split.json, unless the command line does."""
        if not _is_written(trainer):
            module = module_of(pl_module)
            text = config_of(trainer, module, default_callbacks)
            if trainer.global_step:
                check_resumed(trainer, text)
            write_start(trainer, module, text)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the end of a fit, or what a test measured, on rank zero."""
        module = module_of(pl_module)
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            module.facts |= {"epochs": trainer.current_epoch, "steps": trainer.global_step}
            if trainer.is_global_zero:
                write_finish(trainer)
        if stage != "test" or not trainer.is_global_zero or module.outputs is None:
            return
        folder = run_folder(trainer)
        hashes = {
            **_hashes(module),
            "key": self.key,
            "config": config_line(folder, SETTINGS),
            "checkpoint": _tested(trainer, module),
        }
        run_results = RunResults(
            task=self.task or (type(module.task).__name__ if module.task is not None else ""),
            method=self.method or _method_name(module),
            measurements=_measurements(trainer, module, hashes["weights"]),
            seeds=self.seeds or _seeds(module),
            hashes=hashes,
            seconds=module.stopwatch.seconds(),
            facts={
                **_facts(module),
                "epochs": trainer.current_epoch,
                "steps": trainer.global_step,
                **module.facts,
                **self.facts,
            },
        )
        run_results.save(folder)
        save_outputs(folder, module.evaluated(), hashes)
        # a fit has written the split that its weights were made on
        is_fitted = (folder / CHECKPOINT).exists() and (folder / SPLIT).is_file()
        if not is_fitted and _link_checkpoint(trainer):
            text = config_of(trainer, module, default_callbacks)
            write_files(folder, module, text)
        elif not is_fitted and module.task is not None:
            module.task.split.save(folder / SPLIT)


def _method_name(module: UnlearningModule) -> str:
    """Class of the method, or the name of a pretrained model."""
    return module.name if isinstance(module, PretrainedModel) else type(module).__name__


def recorded_folder(module: UnlearningModule) -> Path | None:
    """Run folder of a test, where a ResultsWriter writes one."""
    callbacks: list[Any] = module.trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, ResultsWriter) for callback in callbacks):
        return run_folder(module.trainer)
    return None


def _is_written(trainer: Trainer) -> bool:
    """Whether another callback writes the start of the run folder, as that of the command line."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return any(getattr(callback, "writes_run_folder", False) for callback in callbacks)


def _link_checkpoint(trainer: Trainer) -> bool:
    """Link the tested checkpoint of another folder into the run folder, which holds none.

    Returns:
        Whether it was linked; another file system does not allow it.
    """
    file = run_folder(trainer) / CHECKPOINT
    if not trainer.ckpt_path or not Path(trainer.ckpt_path).is_file() or file.exists():
        return False
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        os.link(trainer.ckpt_path, file)
        source = Path(trainer.ckpt_path).parent.parent
        if finished_fit(source) is not None and checkpoint_digest(source / CHECKPOINT) == (
            checkpoint_digest(file)
        ):
            shutil.copyfile(source / FIT, run_folder(trainer) / FIT)
    except OSError:  # the results alone are written
        return False
    return True


def _tested(trainer: Trainer, module: UnlearningModule) -> str:
    """Hash of the checkpoint that was tested: the one that was loaded, else the run's last.

    Empty where the run has none; `memory` where the model in memory has other weights than it.
    """
    if trainer.ckpt_path:
        return checkpoint_digest(trainer.ckpt_path)
    file = run_folder(trainer) / CHECKPOINT
    if file.is_file() and not _holds_weights(file, module):
        return "memory"
    return checkpoint_digest(file)


def _holds_weights(file: Path, module: UnlearningModule) -> bool:
    """Whether a checkpoint has the weights of a module; its tensors are mapped, not read."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        return weights_hash(content["state_dict"]) == weights_hash(module.state_dict())
    except (RuntimeError, ValueError, KeyError, TypeError, EOFError, UnpicklingError):
        return False


def _measurements(trainer: Trainer, module: UnlearningModule, weights: str) -> list[Measurement]:
    """What each suite of a test measured, and results that no suite keeps."""
    measured = datetime.now(UTC).isoformat()
    common = {"measured": measured, "versions": versions()}
    reported = {id(result) for result in module.results}
    measurements = []
    for suite in trainer.callbacks:  # type: ignore[attr-defined]
        if not isinstance(suite, Suite) or suite.latest_results is None:
            continue
        results = [result for result in suite.latest_results if id(result) in reported]
        reported -= {id(result) for result in results}
        options = suite_options(suite)
        oracle = options.pop("oracle", None)
        measurements.append(
            Measurement(
                class_path(type(suite)),
                options,
                results,
                _oracle_weights(oracle, trainer, weights),
                presentation_of([suite]),
                suite.latest_seconds,
                sources=source_hash(type(suite)),
                **common,
            )
        )
    rest = [result for result in module.results if id(result) in reported]
    return [*measurements, *([Measurement("", {}, rest, **common)] if rest else [])]


def suite_options(suite: Suite) -> dict[str, Any]:
    """Arguments of a suite as plain data, defaults among them."""
    parameters = inspect.signature(type(suite).__init__).parameters.values()
    defaults = {
        parameter.name: to_spec(parameter.default)
        for parameter in parameters
        if parameter.default is not parameter.empty
    }
    return {**defaults, **to_spec(suite)["init_args"]}


def _oracle_weights(oracle: Any, trainer: Trainer, weights: str) -> str:
    """Hash of the weights of a suite's oracle; those of the run where it is the oracle itself.

    A model in place of a run folder is identified by its specification.
    """
    if not oracle:
        return ""
    if not isinstance(oracle, (str, Path)):
        return digest(oracle)
    if Path(oracle).resolve() == run_folder(trainer).resolve():
        return weights
    try:
        return RunResults.load(oracle).hashes.get("weights", "")
    except InputError:  # the suite has measured without the oracle's results
        return ""


def _seeds(module: UnlearningModule) -> dict[str, int]:
    split_seed = module.task.split.seed if module.task is not None else 0
    return {"split": split_seed, "unlearn": module.seed}


def _hashes(module: UnlearningModule) -> dict[str, str]:
    split = module.task.split if module.task is not None else None
    metadata = getattr(module.backbone, "weights_metadata", {})
    return {
        "split": split.hash if split is not None else "",
        "train_split": split.train_hash if split is not None else "",
        "original": module.original_hash,
        "weights": weights_hash(module.served()),
        "recipe": module.recipe_hash() or str(metadata.get("recipe", "")),
    }


def _facts(module: UnlearningModule) -> dict[str, Any]:
    """Classes, sizes, settings and versions of a run."""
    task = module.task
    sizes = {name: len(ids) for name, ids in task.split.parts.items()} if task is not None else {}
    return {
        "method_class": class_path(type(module)),
        "task_class": class_path(type(task)) if task is not None else "",
        "sizes": sizes,
        "method_arguments": to_spec(module)["init_args"],
        "common_defaults": _common_defaults(),
        "selector": dict(task.split.selector) if task is not None else {},
        "versions": versions(),
    }


def _common_defaults() -> dict[str, Any]:
    """Default settings of every method (`norm`, `master_weights`), which a report leaves out."""
    parameters = inspect.signature(UnlearningModule.__init__).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if isinstance(parameter.default, str | bool)
    }
