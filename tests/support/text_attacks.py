"""Measured runs of small language models that suites of attacks are tested on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from callbacks import ResultsWriter
from callbacks.relearning import Relearning
from mu.core.module import UnlearningModule
from mu.data.questions import QuestionSet
from mu.data.split import Split
from mu.methods import GradientAscent
from mu.metrics.results import Result
from tests.support.doubles_text import People, causal_lm, folder, people
from tests.support.helpers import (
    State,
    trainer,
)


def adam(rate: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda params: torch.optim.Adam(params, lr=rate)


def relearning(**changes: Any) -> Relearning:
    return Relearning(**{"examples": 5, "steps": 15, "optimizer": adam(3e-3), **changes})


def measured(
    module: UnlearningModule,
    *suites: Callback,
    task: Any = None,
    folder: Path | None = None,
    epochs: int = 0,
) -> dict[str, Result]:
    """Fit for some epochs, then test with the suites; with a folder, write it as a run folder."""
    more: dict[str, Any] = {"default_root_dir": str(folder)} if folder is not None else {}
    run = trainer(
        max(epochs, 1),
        callbacks=[*suites, *([ResultsWriter()] if folder is not None else [])],
        **more,
    )
    task = task or people()
    if epochs:
        run.fit(module, datamodule=task)
    run.test(module, datamodule=task, verbose=False)
    return {result.metric: result for result in module.results}


def ascent(state: State, **changes: Any) -> GradientAscent:
    return GradientAscent(causal_lm(state), optimizer=adam(3e-3), **changes)


class Neighbours(People):
    """Three rows that stand together are about one author."""

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        split, sets = super().read()
        return split, {
            name: QuestionSet(
                name,
                [
                    {**row, "author": int(index) // 3}
                    for row, index in zip(rows.rows, rows.indices, strict=True)
                ],
                rows.indices,
            )
            for name, rows in sets.items()
        }


def neighbours() -> Neighbours:
    """Without the last row, which would be the only one about its author."""
    task = Neighbours(tokenizer=folder())
    task.setup()
    sets = dict(task.sets)
    task._sets = {**sets, "forget": sets["forget"].select(range(12))}
    return task
