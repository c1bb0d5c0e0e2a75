"""Every method resumes to the weights of an uninterrupted run."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.core.edit import Edit
from tests.contract.catalogue import (
    METHODS,
    PAIRS,
)
from tests.support.helpers import Snapshot, different, weights
from tests.support.method_cases import Baselines, method_case, on_all, on_all_slow

EDITS = [pair for pair in PAIRS if issubclass(METHODS[pair[0]], Edit)]


on_edits_slow = pytest.mark.parametrize(
    ("name", "backbone_name"), [method_case(pair, pytest.mark.slow) for pair in EDITS]
)


@on_all
def test_run_resumed_inside_an_epoch_equals_uninterrupted(
    name: str, backbone_name: str, baseline: Baselines
) -> None:
    """Fails when something that matters is neither in the weights nor in the checkpoint."""
    run = baseline(name, backbone_name)
    middle = run.steps[len(run.steps) // 2]
    resumed = run.case.run(ckpt_path=middle)
    assert resumed.trainer.global_step == run.module.trainer.global_step
    assert different(run.after, weights(resumed)) == []


@on_all_slow
def test_run_resumed_after_any_step_equals_uninterrupted(
    name: str, backbone_name: str, baseline: Baselines
) -> None:
    """Fails when one place of a run (its first step, the last of an epoch) cannot be resumed
    from.
    """
    run = baseline(name, backbone_name)
    for file in run.steps[:-1]:
        assert different(run.after, weights(run.case.run(ckpt_path=file))) == [], file.name


@on_all_slow
def test_run_resumed_between_epochs_equals_uninterrupted(
    name: str, backbone_name: str, baseline: Baselines
) -> None:
    """Fails when what happens at the end of an epoch is done twice, or not at all."""
    run = baseline(name, backbone_name)
    for file in run.ends[:-1]:
        assert different(run.after, weights(run.case.run(ckpt_path=file))) == [], file.name


@on_edits_slow
def test_an_edit_killed_in_its_pass_starts_again(
    name: str, backbone_name: str, baseline: Baselines, tmp_path: Path
) -> None:
    """Fails when an edit goes on with half of its statistics."""
    run = baseline(name, backbone_name)
    run.case.run(callbacks=[Snapshot(tmp_path / "x.ckpt", 0, 1)])
    assert different(run.after, weights(run.case.run(ckpt_path=tmp_path / "x.ckpt"))) == []
