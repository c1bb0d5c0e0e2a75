"""SCRUB+R: the epoch whose forget error is closest to the validation error, and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tasks
from mu.core.lr import OneCycle
from mu.methods import Train
from mu.methods.general.scrub_rewind import SCRUBRewind
from mu.utils.errors import InputError
from tests.support.equations import (
    FAST,
)
from tests.support.helpers import (
    Snapshot,
    Watch,
    classifier,
    different,
    digits,
    fit,
    regressor,
    trainer,
    weights,
)
from tests.support.method_runs import (
    INSIDE_EPOCHS,
    check_class_is_forgotten,
    check_preset_builds,
    resumed_run,
    sgd,
)


class Students(Watch):
    """Keeps a copy of the student after each epoch, before the module rewinds it (callbacks without
    a metric come first).
    """

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        self.latest = weights(pl_module.backbone)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.states.append(self.latest)


def error_of(state: dict[str, Tensor], part: Any, only: set[int] | None = None) -> float:
    """Error of a classifier on a part, or on its samples of some classes."""
    backbone = classifier(state).eval()
    rows = part.__getitems__(list(range(len(part))))
    with torch.no_grad():
        wrong = backbone.predict(rows).argmax(1) != rows["label"]
    keep = [only is None or int(label) in only for label in rows["label"]]
    return float(wrong[torch.tensor(keep)].float().mean())


def test_scrub_rewind_takes_the_epoch_whose_forget_error_is_closest() -> None:
    """Errors and the choice are worked out again from copies of the student; must fail if epochs
    are counted from 1.
    """
    task = digits(train_size=120, validation_size=80, batch_size=20)
    task.selector = tasks.ByClass(classes=3)
    backbone = classifier()
    fit(Train(backbone, optimizer=FAST, scheduler=OneCycle()), task, epochs=4)
    original = weights(backbone)
    watch = Students()
    module = SCRUBRewind(
        backbone, msteps=3, alpha=0.1, optimizer=lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9)
    )
    fit(module, task, epochs=5, callbacks=[watch])
    states = [original, *watch.states]
    errors = [error_of(state, task.datasets["forget"]) for state in states]
    reference = error_of(states[-1], task.datasets["validation"], only={3})
    assert module.forget_errors == pytest.approx(
        errors
    ) and module.reference_error == pytest.approx(reference)
    gaps = [abs(error - reference) for error in errors]
    chosen = int(module.rewound_to)
    assert chosen == gaps.index(min(gaps)) and len(set(errors)) > 1
    assert not different(states[chosen], weights(backbone))


@pytest.mark.parametrize(
    ("errors", "reference", "chosen"),
    [
        ([0.0, 0.5, 0.2, 0.1], 0.22, 2),
        ([0.0, 0.5, 0.4, 0.3], 0.05, 0),
        ([0.1, 0.5, 0.3, 0.3], 0.3, 2),
        ([0.0, 0.9, 0.8, 0.7], 0.6, 3),
    ],
)
def test_scrub_rewind_counts_the_original_as_epoch_zero(
    errors: list[float], reference: float, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given errors, the right weights; the original is an answer, not a fault; ties go to the
    earliest.
    """
    remaining = list(errors)
    monkeypatch.setattr(SCRUBRewind, "forget_error", lambda self: remaining.pop(0))
    monkeypatch.setattr(SCRUBRewind, "validation_error", lambda self: reference)
    backbone = classifier()
    watch = Students()
    original = weights(backbone)
    module: Any = fit(SCRUBRewind(backbone, optimizer=FAST), epochs=3, callbacks=[watch])
    assert int(module.rewound_to) == chosen and module.epoch_states == []
    assert not different([original, *watch.states][chosen], weights(backbone))


def test_scrub_rewind_goes_back_to_an_epoch_from_before_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kept students travel with the checkpoint."""
    monkeypatch.setattr(
        SCRUBRewind, "forget_error", lambda self: [0.0, 0.5, 0.9, 0.8][len(self.forget_errors)]
    )
    monkeypatch.setattr(SCRUBRewind, "validation_error", lambda self: 0.5)
    through: Any = fit(
        SCRUBRewind(classifier(), optimizer=FAST),
        epochs=3,
        callbacks=[Snapshot(tmp_path / "middle.ckpt", 1, 2)],
    )
    resumed: Any = fit(
        SCRUBRewind(classifier(), optimizer=FAST), epochs=3, ckpt_path=tmp_path / "middle.ckpt"
    )
    assert int(through.rewound_to) == int(resumed.rewound_to) == 1
    assert not different(weights(through), weights(resumed))


def test_scrub_rewind_needs_a_classifier_validation_samples_and_a_fresh_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Classifier"):
        SCRUBRewind(regressor())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="validation"):
        fit(SCRUBRewind(classifier()), digits(validation_size=0))
    module = SCRUBRewind(classifier(), optimizer=FAST)
    run = trainer(1)
    run.fit(module, digits())
    run.save_checkpoint(tmp_path / "done.ckpt")
    with pytest.raises(InputError, match="finished"):
        fit(SCRUBRewind(classifier(), optimizer=FAST), epochs=2, ckpt_path=tmp_path / "done.ckpt")


@pytest.mark.parametrize("position", INSIDE_EPOCHS)
def test_scrub_rewind_resumes_inside_an_epoch(position: tuple[int, int], tmp_path: Path) -> None:
    """The students of earlier epochs travel with the checkpoint."""
    uninterrupted, resumed = resumed_run(
        lambda b: SCRUBRewind(b, msteps=1, optimizer=FAST), position, tmp_path
    )
    assert uninterrupted.forget_errors == resumed.forget_errors


def test_preset_builds() -> None:
    check_preset_builds("scrub_rewind")


@pytest.mark.slow
def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(
        lambda b: SCRUBRewind(b, msteps=3, alpha=0.1, optimizer=sgd(5e-3, 5e-4)), 5, 0.2, 0.9
    )
