"""Default lengths of fits: a study never trains for Lightning's 1,000 epochs unsaid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mu.bench.default_lengths import default_lengths
from mu.bench.study_file import read_study
from mu.config.trainer_values import missing_length
from mu.methods import ESD, SSD, FineTune
from tests.bench.small_study import STUDY, written


def test_methods_without_an_end_are_named_with_their_length(tmp_path: Path) -> None:
    """Fails when a method's own limit, or that of the study, is passed over."""
    methods = {
        "FineTune": {"model": {"class_path": "mu.methods.FineTune"}},
        "SSD": {"model": {"class_path": "mu.methods.SSD"}, "trainer": {"max_time": "00:00:01:00"}},
    }
    recipe = {"trainer": {}}
    study = read_study(str(written(tmp_path, methods=methods, recipe=recipe)), {})
    assert default_lengths(study) == [
        "recipe: no trainer.max_epochs, so it trains for 182 epochs, its default",
        "FineTune: no trainer.max_epochs, so it trains for 10 epochs, its default",
    ]
    limited = {**STUDY["trainer"], "max_steps": 5}
    assert default_lengths(read_study(str(written(tmp_path, trainer=limited)), {})) == []


@pytest.mark.parametrize(
    ("trainer", "method", "limits"),
    [
        ({}, FineTune, {"max_epochs": 10}),
        ({"max_steps": -1, "max_epochs": None}, SSD, {"max_epochs": 1}),
        ({}, ESD, {"max_steps": 1000, "max_epochs": -1}),
        ({"max_epochs": -1}, ESD, {}),
        ({"max_steps": 7}, FineTune, {}),
        ({"max_time": {"minutes": 1}}, FineTune, {}),
        ({"fast_dev_run": True}, FineTune, {}),
        ({"callbacks": [{"class_path": "lightning.pytorch.callbacks.Timer"}]}, FineTune, {}),
    ],
)
def test_a_trainer_without_an_end_takes_that_of_the_method(
    trainer: dict[str, Any], method: Any, limits: dict[str, int]
) -> None:
    assert missing_length(trainer, method) == limits
