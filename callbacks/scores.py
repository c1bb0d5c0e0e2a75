"""Scores of a model, and of altered copies of it, on sets of samples: each sample once, the same
numbers on every rank.

Batches are dealt to ranks and their scores are gathered, so what an altered copy is must not depend
on the rank that made it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from callbacks.images import original_images as originals
from mu.core.module import UnlearningModule
from mu.data.loader import EvalLoader
from mu.data.questions import QuestionSet
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.session import questions_of
from mu.metrics.outputs import Outputs
from mu.metrics.results import Result
from mu.utils.errors import InputError
from mu.utils.files import save_tensors
from mu.utils.modules import eval_mode
from mu.utils.resumable import Ranks

Scores = Mapping[str, Tensor]
"""`index` `[N]` int64, ascending, and each of the backbone's scores `[N]`, on the CPU."""
FILE = "original_scores.safetensors"
LOWER = ("loss",)
"""Scores that fall as a model learns; all others rise."""


@torch.no_grad()
def scored(backbone: Any, module: UnlearningModule, dataset: Any) -> Scores:
    """What `backbone.scores` says of every sample, in eval mode.

    Args:
        backbone: what the module serves, or another model of its kind.
        module: knows the ranks, the device and the precision.
        dataset: has `indices`, as a task's datasets do.

    Raises:
        InputError: when the backbone scores nothing on such samples.
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


def part_of(module: UnlearningModule, name: str, suite: str) -> Any:
    """The dataset of a part of the task's split.

    Raises:
        InputError: when there is no task, or it has no such part.
    """
    found = module.task.datasets.get(name) if module.task is not None else None
    if found is None:
        known = ", ".join(module.task.datasets) if module.task is not None else "no task"
        raise InputError(
            f"{suite} measures on the part {name!r}, which the task has not; it has {known}."
        )
    return found


def graph_of(
    backbone: Any,
    module: UnlearningModule,
    sets: Mapping[str, QuestionSet] | None = None,
    encoder: Any = None,
) -> Graph:
    """Metrics of a language model on sets of questions, shared out among ranks; nothing is kept on
    disk, because altered copies are many.

    Args:
        backbone: what the module serves, or another language model.
        module: knows the task, the ranks and the precision.
        sets: of questions, by the names that the metrics know; the task's when None.
        encoder: the task's when None.

    Raises:
        InputError: when the task has no sets of questions.
    """
    own, usual = questions_of(module)
    ranks = Ranks(module.global_rank, module.world_size, lockstep=module.device_mesh is not None)
    return Graph(
        backbone,
        own if sets is None else sets,
        encoder or usual,
        ranks=ranks,
        within=module.precision,
        precision=str(module.trainer.precision),
    )


def headline(scores: Iterable[str]) -> str:
    """The score that stands for the model: the accuracy where there is one, else the loss."""
    known = [name for name in scores if name != "index"]
    return "accuracy" if "accuracy" in known else known[0]


def shown(name: str, values: Tensor) -> float:
    """Mean of a score as it is reported: an accuracy in percent."""
    return values.double().mean().item() * (100 if name == "accuracy" else 1)


def unit(name: str) -> str:
    """Of `shown`."""
    return "%" if name == "accuracy" else ""


def gain(score: str, before: float, after: float) -> float:
    """How much more is known after than before, in the score's unit: a loss falls as a model
    learns.
    """
    return before - after if score in LOWER else after - before


def most(score: str, levels: Iterable[float]) -> float:
    """The level at which most is known: whoever attacks may also leave the attack out."""
    return (min if score in LOWER else max)(levels)


def returned(suite: str, score: str, levels: Mapping[str, float]) -> list[Result]:
    """The share of the way back to the original, in percent, as `SUITE/returned`; nothing where no
    way was gone.

    Args:
        suite: the beginning of the metric's name.
        score: which.
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


# ---- the original's ------------------------------------------------------------------------------


def keep_original(folder: Path, module: UnlearningModule, names: Iterable[str], suite: str) -> None:
    """Score parts with the weights that the run begins from, and write that down; a run that begins
    from new weights has no original.
    """
    if (
        module.trains_from_scratch
        or module.device_mesh is not None
        or not originals.has_original_weights(module)
    ):
        return  # sharded weights have no hash, and no altered copy of them is measured either
    kept = _read(folder, module)
    for name in names:
        if f"{name}/index" not in kept:
            kept |= {
                f"{name}/{score}": value
                for score, value in scored(
                    module.backbone, module, part_of(module, name, suite)
                ).items()
            }
    if module.global_rank == 0:
        save_tensors(folder / FILE, kept, _stamp(module))


def original(
    folder: Path, module: UnlearningModule, name: str, served: Scores, suite: str
) -> Scores | None:
    """The original's scores on a part: those that were kept, those of the reference, or the model's
    own where it is untouched.

    Args:
        folder: the run folder.
        module: whose original.
        name: of the part.
        served: the scores of what is served.
        suite: who asks.

    Returns:
        None where nobody knows them.
    """
    kept = {
        key.partition("/")[2]: value
        for key, value in _read(folder, module).items()
        if key.partition("/")[0] == name
    }
    if kept:
        return kept
    if module.trains_from_scratch:
        return None
    if module.served() is module.backbone and originals.has_original_weights(module):
        return served
    return (
        None
        if module.reference is None
        else scored(module.reference, module, part_of(module, name, suite))
    )


def _stamp(module: UnlearningModule) -> dict[str, str]:
    return {
        "original": module.original_hash,
        "split": module.task.split.hash if module.task is not None else "",
        "seed": str(module.seed),
    }


def _read(folder: Path, module: UnlearningModule) -> dict[str, Tensor]:
    """What is kept of this run's original on this split; nothing where the file is another's. The
    first rank, which writes, tells.
    """
    from safetensors import safe_open

    found: list[dict[str, Tensor]] = [{}]
    if module.global_rank == 0 and (folder / FILE).is_file():
        with safe_open(folder / FILE, framework="pt") as opened:
            if dict(opened.metadata() or {}) == _stamp(module):
                found = [{name: opened.get_tensor(name) for name in opened.keys()}]  # noqa: SIM118 - not a mapping
    if module.world_size > 1:
        torch.distributed.broadcast_object_list(found, 0)
    return found[0]
