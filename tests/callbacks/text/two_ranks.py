"""Attacks on language models on two ranks: `python -m torch.distributed.run --nproc-per-node 2 -m
tests.callbacks.text.two_ranks OUT`.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from callbacks import ResultsWriter
from callbacks.quantisation import Quantisation
from callbacks.relearning import Relearning
from callbacks.text.probes import LinearProbe, LogitLens
from callbacks.text.reintroduction import Reintroduction
from mu.evaluation.text.metrics import ExtractionStrength
from mu.methods import GradientAscent
from tests.support.doubles_text import causal_lm, folder, people
from tests.support.helpers import trainer


def run_all(place: Path, **distributed: Any) -> dict[str, Any]:
    """Numbers and details of one test with every suite, in a fit's run folder. Four batches of the
    forget part, one of 13 rows alone.
    """
    rate = lambda params: torch.optim.Adam(params, lr=3e-3)  # noqa: E731
    suites = [
        Relearning(5, 6, rate, batch_size=2, metrics=[ExtractionStrength("forget")]),
        Quantisation(group=8),
        LinearProbe(),
        LogitLens(),
        Reintroduction(facts=2, source="paraphrase"),
        ResultsWriter(),
    ]
    module = GradientAscent(causal_lm(), optimizer=rate)
    task = people(eval_batch_size=4)
    run = trainer(1, callbacks=suites, default_root_dir=str(place), **distributed)
    run.fit(module, datamodule=task)
    run.test(module, datamodule=task, verbose=False)
    return {
        "values": [(result.metric, result.value) for result in module.results],
        "details": [
            {name: value for name, value in result.detail.items() if name != "seconds"}
            for result in module.results
        ],
    }


def main() -> None:
    """Run on this rank, and write what it found."""
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    folder()  # transformers saves on the first rank alone once there is a process group
    root = Path(sys.argv[1])
    results = run_all(root / "two", strategy="ddp", devices=2, num_nodes=1)
    torch.save(results, root / f"rank{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main()
