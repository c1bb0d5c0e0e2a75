"""An evaluated epoch is computed once, however many suites look at it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from callbacks import Accuracy, Cost, Membership, ResultsWriter, RetrainGap
from mu.methods import FineTune, Retrain
from tests.support.helpers import classifier, digits, trainer


def evaluated(
    module, folder: Path, *suites: Callback, epochs: int = 0, batch_size: int = 50
) -> tuple[int, int]:
    """How often the network ran in a test, and how many batches there were."""
    task = digits(eval_batch_size=batch_size, batch_size=64)
    run_trainer = trainer(
        max(epochs, 1), callbacks=[*suites, ResultsWriter()], default_root_dir=str(folder)
    )
    if epochs:
        run_trainer.fit(module, datamodule=task)
    calls: Counter[str] = Counter()

    def count(*_: object) -> None:
        calls["grad" if torch.is_grad_enabled() else "plain"] += 1

    handle = module.backbone.network.register_forward_hook(count)
    run_trainer.test(module, datamodule=task, verbose=False)
    handle.remove()
    assert calls["grad"] == 0, "a test needs no graph"
    # one sample is predicted by the check of the task
    return calls["plain"] - 1, sum(-(-len(ids) // batch_size) for ids in task.split.parts.values())


@pytest.mark.parametrize("number", [1, 2, 6])
def test_suites_share_one_forward_pass(number: int, tmp_path: Path) -> None:
    """Fails when a suite runs the network itself, or when the test runs it once for each suite."""
    suites: list[Callback] = [
        Accuracy(),
        Membership(attacks=["confidence"]),
        Cost(),
        Accuracy("validation"),
        Accuracy(),
        Membership("validation", ["prob"]),
    ]
    forwards, batches = evaluated(FineTune(classifier()), tmp_path, *suites[:number])
    assert forwards == batches > 10


def test_the_gap_to_the_oracle_needs_no_pass_of_its_own(tmp_path: Path) -> None:
    """Fails when the oracle, or the unlearned model, is run again for the gap: both have written
    what they said.
    """
    suites = (Accuracy(), Membership(attacks=["confidence"]))
    forwards, batches = evaluated(Retrain(classifier()), tmp_path / "oracle", *suites, epochs=1)
    assert forwards == batches
    gap = RetrainGap(str(tmp_path / "oracle"), recipe="unchecked")
    forwards, batches = evaluated(FineTune(classifier()), tmp_path / "run", *suites, gap)
    assert forwards == batches


def test_curves_take_one_pass_for_all_scores(tmp_path: Path) -> None:
    """Fails when loss and accuracy are computed from a prediction each."""
    task = digits(eval_batch_size=50, curves=["forget", "retain"])
    module = FineTune(classifier())
    run_trainer = trainer(1, default_root_dir=str(tmp_path), limit_val_batches=1.0)
    calls = Counter()
    module.backbone.network.register_forward_hook(lambda *_: calls.update(forward=1))
    run_trainer.validate(module, datamodule=task, verbose=False)
    batches = sum(-(-len(task.split.parts[name]) // 50) for name in ("forget", "retain"))
    assert calls["forward"] == batches + 1  # one sample is predicted by the check of the task
    assert set(module.curve_keys()) == {
        "forget/loss",
        "forget/accuracy",
        "retain/loss",
        "retain/accuracy",
    }


@pytest.mark.parametrize("verbose", [True, False])
def test_a_library_trainer_prints_each_number_once(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails when Lightning's table shows every number for each of the data loaders."""
    module = FineTune(classifier())
    evaluating = trainer(callbacks=[Accuracy()], limit_val_batches=1.0)
    task = digits(curves=["forget", "retain"])
    evaluating.test(module, task, verbose=verbose)
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line]
    assert names == [result.metric for result in module.results] * verbose
    evaluating.validate(module, task, verbose=verbose)
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    expected = ["forget/loss", "forget/accuracy", "retain/loss", "retain/accuracy"]
    assert names == expected * verbose
