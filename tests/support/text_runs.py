"""The suites of language models on tiny ones, on two ranks: `python -m torch.distributed.run
--nproc-per-node 2 -m tests.support.text_runs OUT`.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import ModelParallelStrategy

from callbacks import Curves, ResultsWriter
from callbacks.text.examples import TextExamples
from callbacks.text.memorisation import Memorisation
from callbacks.text.tofu import TOFU
from mu.core.module import UnlearningModule
from mu.methods import FineTune
from mu.utils.files import read_json
from tests.support.doubles_text import causal_lm, people
from tests.support.helpers import trainer

SETTINGS: dict[str, Any] = {
    "kept": ["retain", "facts"],
    "choices": ["facts"],
    "max_new_tokens": 5,
    "tokens_per_batch": 100,
    "prompts_per_batch": 4,
}
SHOWN: dict[str, Any] = {
    name: SETTINGS[name] for name in ("max_new_tokens", "tokens_per_batch", "prompts_per_batch")
}


def suites(oracle: Any = None, **changes: Any) -> list[Callback]:
    """Those of this wing, with numbers, logs and curves."""
    return [
        TOFU(oracle, **{**SETTINGS, **changes}),
        Memorisation(oracle, **SETTINGS),
        TextExamples(count=2, **SHOWN),
        Curves(),
        ResultsWriter(),
    ]


def run(
    module: UnlearningModule,
    folder: Path,
    epochs: int = 0,
    callbacks: list[Callback] | None = None,
    **changes: Any,
) -> UnlearningModule:
    """Fit, where there are epochs, and test."""
    run_trainer = trainer(
        max(epochs, 1),
        callbacks=suites() if callbacks is None else callbacks,
        default_root_dir=str(folder),
        **changes,
    )
    task = people()
    if epochs:
        run_trainer.fit(module, datamodule=task)
    run_trainer.test(module, datamodule=task, verbose=False)
    return module


def tuned(**changes: Any) -> FineTune:
    """Fine-tuning that moves a tiny model in a few steps."""
    return FineTune(causal_lm(), optimizer=lambda p: torch.optim.Adam(p, lr=3e-3), **changes)


def numbers(module: UnlearningModule) -> dict[str, float]:
    """By metric."""
    return {result.metric: result.value for result in module.results}


def run_all(folder: Path, oracle: Path, **distributed: Any) -> dict[str, Any]:
    """A fit that is measured as it goes, and its test."""
    module = run(tuned(), folder, 2, suites(str(oracle), every_n_epochs=1), **distributed)
    summary: dict[str, Any] = {"results": numbers(module), "files": {}}
    if module.global_rank == 0:
        curves: Any = read_json(folder / "curves.json")
        items: Any = read_json(folder / "items.json")
        examples: Any = [
            read_json(folder / "media" / f"examples_{name}.json") for name in ("forget", "retain")
        ]
        summary["files"] = {"curves": curves, "items": items["items"], "examples": examples}
    return summary


def run_sharded(folder: Path, oracle: Path, **distributed: Any) -> dict[str, float]:
    """A fit and a test whose ranks must do every forward pass together (no recorder: sharded
    weights have no hash).
    """
    measured = [
        TOFU(str(oracle), every_n_epochs=1, **SETTINGS),
        Memorisation(str(oracle), **SETTINGS),
    ]
    return numbers(run(tuned(), folder, 1, measured, **distributed))


def main() -> None:
    """Run on this rank, and write what it found."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    two = {"devices": 2, "num_nodes": 1}
    summary = run_all(folder / "two", folder / "oracle", strategy="ddp", **two)
    strategy = ModelParallelStrategy(
        data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False
    )
    summary["sharded"] = run_sharded(
        folder / "sharded", folder / "oracle", strategy=strategy, **two
    )
    torch.save(summary, folder / f"rank{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
