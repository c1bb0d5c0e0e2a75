"""Scores of a model, and of altered copies of it, on every sample of a data set.

Each sample is scored once, and every rank has the same scores. Batches are divided among ranks and
their scores are gathered, so an altered copy must be the same on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from callbacks.images import original_images as originals
from mu.core.module import UnlearningModule
from mu.data.loader import EvalLoader
from mu.data.questions import QuestionSet
from mu.evaluation.text.graph import Graph, Metric
from mu.evaluation.text.session import questions_of
from mu.metrics.checks import as_vector
from mu.metrics.outputs import Outputs
from mu.metrics.rates import Rate
from mu.metrics.results import Result, compute_result
from mu.utils.errors import InputError, UndefinedError
from mu.utils.files import save_tensors
from mu.utils.modules import eval_mode
from mu.utils.resumable import Ranks

Scores = Mapping[str, Tensor]
"""`index` `[N]` int64, ascending, and each of the backbone's scores `[N]`, on the CPU."""
FILE = "original_scores.safetensors"
LOWER = ("loss",)
"""Scores that fall as a model learns; all others rise."""


@torch.no_grad()
def score_samples(backbone: Any, module: UnlearningModule, dataset: Any) -> Scores:
    """Scores of every sample by `backbone.scores`, in eval mode.

    Args:
        backbone: served model of the module, or another model of the same domain.
        module: module with ranks, device and precision.
        dataset: dataset with `indices`, as those of tasks.

    Raises:
        InputError: when the backbone has no scores for these samples.
    """
    task = module.task
    assert task is not None, "a suite runs in a test of a task"
    store = Outputs().to(module.device)
    with eval_mode(backbone):
        for batch in EvalLoader(
            dataset, "rows", task.eval_batch_size, rank=module.global_rank, world=module.world_size
        ):
            batch = module.trainer.strategy.batch_to_device(batch)
            part = backbone.prepare(
                {name: value for name, value in batch.items() if name != "split"}, module.seed
            )
            with module.precision():
                values = backbone.scores(part)
            if not values:
                raise InputError(
                    f"{type(backbone).__name__} has no score for these samples, so nothing can be "
                    "compared on them."
                )
            store.update(
                "rows",
                {
                    "index": batch["index"],
                    "padded": batch["padded"],
                    **{name: value.float() for name, value in values.items()},
                },
            )
    return {name: value.cpu() for name, value in store.compute()["rows"].items()}


def task_part(module: UnlearningModule, name: str, suite: str) -> Any:
    """Dataset of a part of the task's split, as it is evaluated.

    Raises:
        InputError: when there is no task, or it has no such part.
    """
    datasets = {} if module.task is None else module.task.datasets
    if module.task is None or name not in datasets:
        parts = ", ".join(datasets) or "no task"
        raise InputError(
            f"{suite} measures on the part {name!r}, which the task has not; it has {parts}."
        )
    return module.task.evaluated_dataset(name)


def metric_graph(
    backbone: Any,
    module: UnlearningModule,
    sets: Mapping[str, QuestionSet] | None = None,
    encoder: Any = None,
) -> Graph:
    """Graph of metrics of a language model on question sets, divided among ranks.

    Nothing is cached on disk, because there are many altered copies.

    Args:
        backbone: served model of the module, or another language model.
        module: module with task, ranks and precision.
        sets: question sets by the names in the metrics; those of the task when None.
        encoder: encoder of the sets; that of the task when None.

    Raises:
        InputError: when the task has no sets of questions.
    """
    task_sets, task_encoder = questions_of(module)
    ranks = Ranks(module.global_rank, module.world_size, lockstep=module.device_mesh is not None)
    return Graph(
        backbone,
        task_sets if sets is None else sets,
        encoder or task_encoder,
        ranks=ranks,
        within=module.precision,
        precision=str(module.trainer.precision),
    )


def main_score(scores: Iterable[str]) -> str:
    """Main score of a model: the accuracy where there is one, else the loss."""
    names = [name for name in scores if name != "index"]
    return "accuracy" if "accuracy" in names else names[0]


def mean_score(name: str, values: Tensor) -> float:
    """Mean of a score, in the unit of `score_unit`: an accuracy in percent.

    Raises:
        UndefinedError: a value is NaN, or there is none.
    """
    mean = as_vector(values, f"the {name}").mean().item()
    return mean * (100 if name == "accuracy" else 1)


def score_result(
    metric: str,
    name: str,
    values: Tensor,
    split: str,
    detail: Mapping[str, Any] | None = None,
) -> Result:
    """Result of the mean of a score; an accuracy of samples is a rate.

    Args:
        metric: name of the result.
        name: name of the score.
        values: the score of each sample, `[N]`.
        split: part of the data.
        detail: see Result.
    """

    return compute_result(
        metric,
        lambda: as_rate(name, mean_score(name, values), len(values)),
        None,
        split,
        score_unit(name),
        detail,
    )


def as_rate(name: str, value: float, size: int) -> float | Rate:
    """Mean of a score over samples, as a rate where it is an accuracy."""
    return Rate(value, size, size) if name == "accuracy" else value


def value_of(graph: Graph, metric: Metric) -> Callable[[], float]:
    """Computation of a metric's value, for `compute_result`."""
    return lambda: graph.value(metric).value


def level_before(graph: Graph, metric: Metric) -> dict[str, float]:
    """Detail: a metric before the attack; empty where it is undefined."""
    try:
        return {"before": graph.value(metric).value}
    except UndefinedError:
        return {}


def score_unit(name: str) -> str:
    """Unit of `mean_score`."""
    return "%" if name == "accuracy" else ""


def gain(score: str, before: float, after: float) -> float:
    """Gain of knowledge, in the unit of the score, with reversed sign for losses."""
    return before - after if score in LOWER else after - before


def highest_level(score: str, levels: Iterable[float]) -> float:
    """Level of the most knowledge: smallest loss, largest of any other score."""
    return (min if score in LOWER else max)(levels)


def recovery(suite: str, score: str, levels: Mapping[str, float]) -> list[Result]:
    """Result `SUITE/returned`: share of the unlearned knowledge that returns, in percent.

    There is no result where nothing was unlearned.

    Args:
        suite: beginning of the metric's name.
        score: name of the score.
        levels: `before` and `after` the attack, and the `original` where it is known.
    """
    lost = gain(score, levels["before"], levels["original"]) if "original" in levels else 0.0
    if lost <= 0:
        return []
    back = gain(score, levels["before"], levels["after"])
    return [
        Result(
            f"{suite}/returned",
            100 * back / lost,
            False,
            "forget",
            "%",
            {**levels, "lost": lost, "score": score},
        )
    ]


# ---- scores of the original ----------------------------------------------------------------------


def save_original_scores(
    folder: Path, module: UnlearningModule, names: Iterable[str], suite: str
) -> None:
    """Write the scores of the original model on parts into the run folder.

    A run that begins from new weights has no original.
    """
    if (
        module.trains_from_scratch
        or module.device_mesh is not None
        or not originals.has_original_weights(module)
    ):
        return  # sharded weights have no hash, and altered copies of them are not measured
    tensors = _read(folder, module)
    for name in names:
        if f"{name}/index" not in tensors:
            tensors |= {
                f"{name}/{score}": value
                for score, value in score_samples(
                    module.backbone, module, task_part(module, name, suite)
                ).items()
            }
    if module.global_rank == 0:
        save_tensors(folder / FILE, tensors, _stamp(module))


def original_scores(
    folder: Path, module: UnlearningModule, name: str, served: Scores, suite: str
) -> Scores | None:
    """Scores of the original on a part.

    They are read from the run folder, or measured on the reference, or are those of the served
    model where it still has the original weights.

    Args:
        folder: run folder.
        module: module of the run.
        name: name of the part.
        served: scores of the served model.
        suite: name of the suite, for errors.

    Returns:
        None where no model has the original weights any more.
    """
    stored = {
        key.partition("/")[2]: value
        for key, value in _read(folder, module).items()
        if key.partition("/")[0] == name
    }
    if stored:
        return stored
    if module.trains_from_scratch:
        return None
    if module.served() is module.backbone and originals.has_original_weights(module):
        return served
    return (
        None
        if module.reference is None
        else score_samples(module.reference, module, task_part(module, name, suite))
    )


def _stamp(module: UnlearningModule) -> dict[str, str]:
    return {
        "original": module.original_hash,
        "split": module.task.split.hash if module.task is not None else "",
        "seed": str(module.seed),
    }


def _read(folder: Path, module: UnlearningModule) -> dict[str, Tensor]:
    """Tensors of this run's original on this split; empty where the file is of another run.

    The first rank reads and broadcasts them.
    """
    from safetensors import safe_open

    tensors: list[dict[str, Tensor]] = [{}]
    if module.global_rank == 0 and (folder / FILE).is_file():
        with safe_open(folder / FILE, framework="pt") as opened:
            if dict(opened.metadata() or {}) == _stamp(module):
                tensors = [{name: opened.get_tensor(name) for name in opened.keys()}]  # noqa: SIM118 - not a mapping
    if module.world_size > 1:
        torch.distributed.broadcast_object_list(tensors, 0)
    return tensors[0]
