"""ℓ1-sparse fine-tuning: its penalty and the schedule of its weight, and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mu.core.module import UnlearningModule
from mu.methods.general.l1_sparse import L1Sparse
from mu.utils.errors import InputError
from tests.support.equations import FAST, PLAIN, cross_entropy, moved_as
from tests.support.helpers import Watch, classifier, fit
from tests.support.method_runs import (
    INSIDE_EPOCHS,
    check_class_is_forgotten,
    check_preset_builds,
    resumed_run,
    sgd,
)


def test_l1_sparse_adds_the_sum_of_all_magnitudes() -> None:
    """All weights count, batch norm and biases included, and nothing is averaged."""
    moved_as(
        L1Sparse(classifier(), alpha=0.01, optimizer=PLAIN, norm="eval"),
        lambda net, batch: (
            cross_entropy(net, batch["retain"])
            + 0.01 * sum(p.abs().sum() for p in net.parameters())
        ),
    )


def test_l1_sparse_weight_falls_with_the_epoch_to_zero() -> None:
    module = L1Sparse(classifier(), alpha=0.3, no_l1_epochs=1)
    seen: dict[int, float] = {}

    def see(_: UnlearningModule, batch: Any, i: int) -> None:
        seen[module.current_epoch] = module.penalty_weight(module.current_epoch)

    fit(module, epochs=4, callbacks=[Watch(see)])
    assert [round(seen[epoch], 9) for epoch in range(4)] == [0.3, 0.2, 0.1, 0.0]
    forever = L1Sparse(classifier(), alpha=0.3, no_l1_epochs=4)
    fit(forever, epochs=4)
    assert forever.penalty_weight(3) == 0.3
    with pytest.raises(InputError, match="max_epochs"):
        fit(L1Sparse(classifier()), epochs=-1, max_steps=2)


@pytest.mark.parametrize("position", INSIDE_EPOCHS)
def test_a_run_resumes_inside_an_epoch(position: tuple[int, int], tmp_path: Path) -> None:
    resumed_run(lambda b: L1Sparse(b, optimizer=FAST), position, tmp_path)


def test_preset_builds() -> None:
    check_preset_builds("l1_sparse")


@pytest.mark.slow
def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(
        lambda b: L1Sparse(b, alpha=0.01, optimizer=sgd(0.05, 5e-4)), 10, 0.4, 0.97
    )
