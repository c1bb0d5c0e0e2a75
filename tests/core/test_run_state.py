"""Tests of what a checkpoint records of its run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mu
from callbacks import ResultsWriter
from mu.methods import FineTune
from mu.metrics.run_results import RunResults
from tests.contract.test_load import saved
from tests.support.helpers import classifier, digits, fit, trainer


def test_a_run_records_its_cpu_threads(tmp_path: Path) -> None:
    """Fails when a run's threads, on which its last digits depend, cannot be known later."""
    file = saved(FineTune(classifier()), tmp_path, epochs=1)
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["mu"]["threads"] == torch.get_num_threads()
    checkpoint["mu"]["threads"] = 7
    torch.save(checkpoint, file)
    with pytest.warns(UserWarning, match="made with 7 CPU threads .* OMP_NUM_THREADS=7 gives"):
        fit(FineTune(classifier()), digits(), 2, ckpt_path=file)


def test_results_hold_the_threads_of_the_fit(tmp_path: Path) -> None:
    """Fails when results.json holds the threads of the test alone."""
    file = saved(FineTune(classifier()), tmp_path / "checkpoints", epochs=1)
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["mu"]["threads"] = 7
    torch.save(checkpoint, file)
    module = mu.load(file)
    run = trainer(default_root_dir=str(tmp_path), callbacks=[ResultsWriter()])
    run.test(module, datamodule=digits(), ckpt_path=str(file), verbose=False)
    facts = RunResults.load(tmp_path).facts
    assert facts["fit_threads"] == 7
    assert facts["versions"]["threads"] == str(torch.get_num_threads())
