"""Displays of a fit: one line on the model, epochs that count from 1, lines in a file or pipe."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelSummary, TQDMProgressBar

from mu.cli import displays
from mu.cli.displays import LineProgress, ModelSize, default_displays, epoch_of
from mu.methods import FineTune
from tests.support.helpers import classifier, fit


def arguments(**changes: Any) -> Any:
    values = {"barebones": None, "enable_model_summary": None, "enable_progress_bar": None}
    return SimpleNamespace(**{**values, **changes})


def test_displays_are_those_that_the_configuration_has_not_got() -> None:
    """Mutations: a second display of one kind, which Lightning refuses; one switched off."""
    assert [type(display) for display in default_displays(arguments(), [])] == [
        ModelSize,
        LineProgress,
    ]
    assert default_displays(arguments(barebones=True), []) == []
    off = arguments(enable_model_summary=False, enable_progress_bar=False)
    assert default_displays(off, []) == []
    assert default_displays(arguments(), [ModelSummary(), TQDMProgressBar()]) == []


@pytest.mark.parametrize(
    ("epochs", "text"), [(10, "Epoch 3/10"), (-1, "Epoch 3"), (None, "Epoch 3")]
)
def test_a_fit_without_a_last_epoch_shows_none(epochs: int | None, text: str) -> None:
    """Fails when a fit of so many steps is shown as `Epoch 2/-2`."""
    trainer: Any = SimpleNamespace(current_epoch=2, max_epochs=epochs)
    assert epoch_of(trainer) == text


def test_a_fit_in_a_pipe_prints_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mutations: a line for each batch; numbers twice; floating-point operations that are 0."""
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(displays, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    callbacks = [ModelSize(), LineProgress()]
    fit(FineTune(classifier()), epochs=2, callbacks=callbacks, enable_progress_bar=True)
    first, *lines = capsys.readouterr().err.strip().splitlines()
    assert first == "FineTune: Classifier, 4,934 weights, all trained"
    assert lines == ["Epoch 1/2, batch 3/4, step 3", "Epoch 2/2, batch 2/4, step 6"]
