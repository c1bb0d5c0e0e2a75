"""What a checkpoint of a run holds beside the weights, and the checks when it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_warn

from mu.core.fit_loop import completed_epochs, epoch_end_pending
from mu.core.protocols import Method
from mu.data.datamodule import data_facts
from mu.utils.errors import InputError
from mu.utils.fingerprint import digest
from mu.utils.spec import to_spec
from mu.utils.version import __version__

REFERENCE = "reference."
"""Prefix of the frozen original's keys, which no checkpoint holds."""


class TrainedMethod(Method, Protocol):
    """A method with the constructor arguments that make its recipe."""

    make_optimizer: Any
    scheduler: Any
    norm: Any
    master_weights: bool
    _trainer: Any


def run_record(method: Method, recipe: str) -> dict[str, Any]:
    """How to build a module again, and which original it began from, as plain data.

    Args:
        method: in a fit, at the moment of the checkpoint.
        recipe: hash of the recipe by which the original was trained.

    Returns:
        Content of the checkpoint's key `mu`; it loads with `weights_only=True`.
    """
    task = method.task
    return {
        "epoch_end_due": epoch_end_pending(method.trainer),
        "epochs": completed_epochs(method.trainer),
        "steps": method.trainer.global_step,
        "config": method.run_settings,
        "version": __version__,
        "spec": to_spec(method),
        "data": {} if task is None else data_facts(task),
        "seed": method.seed,
        "original_hash": method.original_hash,
        "recipe": recipe,
        "seconds": dict(method.stopwatch.seconds()),
        "split": task.split.hash if task is not None else "",
        "threads": torch.get_num_threads(),
        "train_split": task.original_split.train_hash if task is not None else "",
    }


def check_resumable(method: Method, record: Mapping[str, Any]) -> None:
    """Refuse to resume from other original weights, with another seed or on another split.

    Where the original weights are gone, their hash is the checkpoint's. It warns of another number
    of CPU threads, among which torch divides its sums.

    Args:
        method: the module of the run that resumes.
        record: its checkpoint's `run_record`.

    Raises:
        InputError: names both seeds, or both hashes of the split or of the original weights.
    """
    if record.get("seed", method.seed) != method.seed:
        raise InputError(
            f"the checkpoint was written with seed {record['seed']}, but this run has seed "
            f"{method.seed}; resume with the same seed, or begin another run."
        )
    split = method.task.split.hash if method.task is not None else ""
    if split and record.get("split") not in ("", None, split):
        raise InputError(
            f"the run was begun on another split of the data ({record['split']}, not {split}); "
            "resume with the same data, selector and split seed, or begin another run."
        )
    if method.original_is_gone:
        method.original_hash = record.get("original_hash", "")
    if method.original_hash and record.get("original_hash") not in ("", None, method.original_hash):
        raise InputError(
            f"the checkpoint began from original weights {record['original_hash']}, but the "
            f"backbone holds {method.original_hash}; resume with the weights that the run began "
            "from."
        )
    threads = torch.get_num_threads()
    if record.get("threads", threads) != threads:
        rank_zero_warn(
            f"the run was made with {record['threads']} CPU threads and resumes with {threads}, so "
            "it may differ from a run in one piece, because torch rounds its sums otherwise; "
            f"OMP_NUM_THREADS={record['threads']} gives the same."
        )


def without_keys(state: dict[str, Any], omitted: Iterable[str], prefix: str = "") -> dict[str, Any]:
    """A state dict without keys, or groups of keys, that are rebuilt when it is loaded.

    Args:
        state: changed in place, so that the metadata that torch keeps on it survives.
        omitted: keys; one that ends in a dot stands for all that begin with it.
        prefix: of all keys of the module.
    """
    names = {prefix + key for key in omitted}
    groups = tuple(name for name in names if name.endswith("."))
    for key in [key for key in state if key in names or key.startswith(groups)]:
        del state[key]
    return state


def check_keys(missing: list[str], unexpected: list[str]) -> None:
    """Refuse a state dict of another method or backbone.

    Args:
        missing: keys that the module has and the state dict lacks, without those of what is
            rebuilt.
        unexpected: keys that the module does not have.

    Raises:
        InputError: names up to three keys.
    """
    if missing or unexpected:
        verb = "lacks" if missing else "has an unknown"
        keys = missing or unexpected
        raise InputError(
            f"the checkpoint {verb} {', '.join(keys[:3])}; it was written for another method or "
            "backbone."
        )


def recipe_hash(method: TrainedMethod) -> str:
    """Hash of a recipe that trains from scratch.

    It covers architecture, optimizer, scheduler, epochs, batches and augmentation. Seeds and
    weights are left out, so that an original and its oracle have the same recipe.
    """
    backbone = to_spec(method.backbone)
    if isinstance(backbone, dict):
        architecture = {
            name: value
            for name, value in backbone["init_args"].items()
            if name not in ("weights", "pretrained", "init_seed") and value is not None
        }
        backbone = {**backbone, "init_args": architecture}
    trainer = method._trainer
    return digest(
        {
            "backbone": backbone,
            "optimizer": to_spec(method.make_optimizer),
            "scheduler": to_spec(method.scheduler),
            "norm": method.norm,
            **({} if method.master_weights else {"master_weights": False}),
            "epochs": trainer.max_epochs if trainer is not None else None,
            "clip": trainer.gradient_clip_val if trainer is not None else None,
            "precision": str(trainer.precision) if trainer is not None else None,
            "task": method.task.recipe() if method.task is not None else None,
        }
    )
