"""ResultsWriter: writes the run folder when a test is over."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.base import module_of, run_folder
from mu.metrics.results import RunResults, save_outputs, versions
from mu.utils.spec import Reconstructible, class_path, to_spec
from mu.utils.weights import weights_hash


class ResultsWriter(Callback, Reconstructible):
    """Writes `results.json`, `outputs.safetensors` and `split.json` into the run folder (the
    trainer's default_root_dir).

    It writes in `teardown`, after every suite, whatever the order of the callbacks.

    Args:
        task: the task's name in a study; its class when None.
        method: the method's name in a study; its class when None.
        seeds: the run's seeds; taken from task and method when None.
        key: the reuse key of a study.
        facts: what else a reader must know.
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
        """Called by a study, which knows the run's names."""
        self.task = task
        self.method = method
        self.seeds = seeds
        self.key = key
        self.facts = {**self.facts, **{name: value for name, value in facts.items() if value}}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write, on rank zero, after a test."""
        module = module_of(pl_module)
        if stage != "test" or not trainer.is_global_zero or module.outputs is None:
            return
        task = module.task
        folder = run_folder(trainer)
        found = getattr(module.backbone, "weights_metadata", {})
        record = RunResults(
            task=self.task or (type(task).__name__ if task is not None else ""),
            method=self.method or type(module).__name__,
            results=module.results,
            seeds=self.seeds
            or {"split": task.split.seed if task is not None else 0, "unlearn": module.seed},
            hashes={
                "split": task.split.hash if task is not None else "",
                "train_split": task.split.train_hash if task is not None else "",
                "original": module.original_hash,
                "weights": weights_hash(module.served()),
                "recipe": module.recipe_hash() or str(found.get("recipe", "")),
                "key": self.key,
            },
            seconds=module.stopwatch.seconds(),
            facts={
                "method_class": class_path(type(module)),
                "task_class": class_path(type(task)) if task is not None else "",
                "sizes": {name: len(ids) for name, ids in task.split.parts.items()}
                if task is not None
                else {},
                "method_arguments": to_spec(module)["init_args"],
                "epochs": trainer.current_epoch,
                "steps": trainer.global_step,
                "selector": dict(task.split.selector) if task is not None else {},
                "versions": versions(),
                **module.facts,
                **self.facts,
            },
        )
        save_outputs(folder, module.evaluated())
        if task is not None:
            task.split.save(folder / "split.json")
        record.save(folder)
