"""Callback that writes results.json, outputs.safetensors and split.json after a test."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.base import Suite, module_of, presentation_of, run_folder
from mu.core.module import UnlearningModule
from mu.core.run_files import CHECKPOINT, checkpoint_digest
from mu.metrics.results import RunResults, save_outputs, versions
from mu.utils.spec import Reconstructible, class_path, to_spec
from mu.utils.weights import weights_hash


class ResultsWriter(Callback, Reconstructible):
    """Writer of `results.json`, `outputs.safetensors` and `split.json` of a run.

    The run folder is the trainer's default_root_dir. The files are written in `teardown`, after
    every suite, for any order of the callbacks.

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

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the run folder on rank zero, after a test."""
        module = module_of(pl_module)
        if stage != "test" or not trainer.is_global_zero or module.outputs is None:
            return
        folder = run_folder(trainer)
        save_outputs(folder, module.evaluated())
        if module.task is not None:
            module.task.split.save(folder / "split.json")
        suites = [callback for callback in trainer.callbacks if isinstance(callback, Suite)]  # type: ignore[attr-defined]
        run_results = RunResults(
            task=self.task or (type(module.task).__name__ if module.task is not None else ""),
            method=self.method or type(module).__name__,
            results=module.results,
            seeds=self.seeds or _seeds(module),
            hashes={**_hashes(module), "key": self.key, "checkpoint": _tested(trainer)},
            seconds=module.stopwatch.seconds(),
            facts={
                **_facts(module),
                "epochs": trainer.current_epoch,
                "steps": trainer.global_step,
                **module.facts,
                **self.facts,
            },
            presentation=presentation_of(suites),
        )
        run_results.save(folder)


def recorded_folder(module: UnlearningModule) -> Path | None:
    """Run folder of a test, where a ResultsWriter writes one."""
    callbacks: list[Any] = module.trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, ResultsWriter) for callback in callbacks):
        return run_folder(module.trainer)
    return None


def _tested(trainer: Trainer) -> str:
    """Hash of the checkpoint that was tested: the one that was loaded, else the run's last."""
    return checkpoint_digest(trainer.ckpt_path or run_folder(trainer) / CHECKPOINT)


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
