"""Shared metric graph of the suites of one test, or of one step of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from mu.core.module import UnlearningModule
from mu.evaluation.text.graph import Graph
from mu.utils.errors import InputError
from mu.utils.resumable import Ranks

CACHE = "evaluation"
"""Folder in a run folder that caches results of batches."""


def shared_graph(module: UnlearningModule, folder: Path | None = None, **settings: Any) -> Graph:
    """Metric graph of the served model on the sets of the task, one for each choice of settings.

    Args:
        module: the module under test or in a fit.
        folder: cache of leaf results on disk; None caches in memory only, as do sharded weights,
            which have no hash.
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
    """Question sets and encoder of the task.

    Raises:
        InputError: when the task has none.
    """
    task: Any = module.task
    if getattr(task, "sets", None) is None or getattr(task, "encoder", None) is None:
        problem = "the run has no task" if task is None else f"{type(task).__name__} has none"
        raise InputError(
            "metrics of language models are taken on sets of questions and answers, and "
            f"{problem}; "
            "use a task of questions."
        )
    return task.sets, task.encoder


def warn_of_short_answers(module: UnlearningModule, max_new_tokens: int) -> None:
    """Warn when prompts of the task leave less than `max_new_tokens` of the model's context."""
    context = getattr(module.backbone, "context", None)
    sets, encoder = questions_of(module)
    if context is None or encoder.max_length + max_new_tokens <= context:
        return
    longest = max(
        len(encoder.tokens(encoder.template.prompt(encoder.tokenizer, row["question"])))
        for question_set in sets.values()
        for row in question_set.rows
    )
    if longest + max_new_tokens > context:
        rank_zero_warn(
            f"prompts of {type(module.task).__name__} have up to {longest} tokens and the model's "
            f"context has {context}, so some answers end before max_new_tokens "
            f"({max_new_tokens}); give max_new_tokens: {max(1, context - longest)}, the same for "
            "all models that are compared."
        )
