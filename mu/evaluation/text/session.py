"""The graph of metrics that all suites of one test, or of one moment of a fit, share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mu.evaluation.text.graph import Graph
from mu.utils.errors import InputError
from mu.utils.resumable import Ranks

if TYPE_CHECKING:
    from mu.core.module import UnlearningModule

CACHE = "evaluation"
"""Folder in a run folder where results of batches are kept."""


def shared_graph(module: UnlearningModule, folder: Path | None = None, **settings: Any) -> Graph:
    """The graph of what the module serves now, on its task's sets; the same for all who ask with
    the same settings.

    Args:
        module: being tested or fitted.
        folder: where results of leaves are kept; None keeps nothing. Sharded weights have no hash,
            so nothing is kept of theirs.
        **settings: `tokens_per_batch` and `prompts_per_batch` of Graph.

    Raises:
        InputError: when the task has no sets of questions.
    """
    trainer: Any = module.trainer
    graphs: dict[Any, Graph] = module.cache.setdefault(Graph, {})
    sharded = module.device_mesh is not None
    folder = None if sharded else folder
    key = (str(folder), *sorted(settings.items()))
    if key not in graphs:
        sets, encoder = questions_of(module)
        graphs[key] = Graph(
            module.served(),
            sets,
            encoder,
            folder=folder,
            within=module.precision,
            precision=str(trainer.precision),
            ranks=Ranks(module.global_rank, module.world_size, lockstep=sharded),
            **settings,
        )
    return graphs[key]


def questions_of(module: UnlearningModule) -> tuple[Mapping[str, Any], Any]:
    """The task's sets of questions and its encoder.

    Raises:
        InputError: when it has none.
    """
    task: Any = module.task
    if getattr(task, "sets", None) is None or getattr(task, "encoder", None) is None:
        what = "there is no task of ours" if task is None else f"{type(task).__name__} has none"
        raise InputError(
            f"metrics of language models are taken on sets of questions and answers, and {what}; "
            "take a task of questions."
        )
    return task.sets, task.encoder
