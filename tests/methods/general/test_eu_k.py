"""EU-k: the last k layers from new weights, and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mu.methods.general.eu_k import EUk
from mu.utils.rng import stream_id
from tests.support.equations import FAST
from tests.support.helpers import Watch, classifier, fit
from tests.support.method_runs import (
    INSIDE_EPOCHS,
    LAST_K,
    check_class_is_forgotten,
    check_only_the_last_k_layers_move,
    check_preset_builds,
    resumed_run,
)


@pytest.mark.parametrize("k", LAST_K)
def test_only_the_last_k_layers_move(k: int) -> None:
    check_only_the_last_k_layers_move(EUk, k)


def test_eu_k_starts_its_layers_anew_once() -> None:
    """The head is a new one, that of the seed, before the first step, and epochs build on one
    another.
    """
    backbone = classifier()
    old = backbone.network.get_parameter("body.linear.weight").detach().clone()
    fresh = (
        backbone.fresh(stream_id("eu-k", 3)).network.get_parameter("body.linear.weight").detach()
    )
    at_epoch_start: list[Tensor] = []
    last: list[Tensor] = []

    class See(Watch):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            at_epoch_start.append(
                pl_module.backbone.network.get_parameter("body.linear.weight").detach().clone()
            )

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            last.append(
                pl_module.backbone.network.get_parameter("body.linear.weight").detach().clone()
            )

    fit(EUk(backbone, k=1, seed=3), epochs=3, callbacks=[See(lambda *_: None)])
    assert torch.equal(at_epoch_start[0], fresh) and not torch.equal(fresh, old)
    assert torch.equal(at_epoch_start[1], last[0]) and torch.equal(at_epoch_start[2], last[1])
    assert not torch.equal(last[2], fresh)
    # another seed, other layers; the normalisation, which no seed gives, stays
    with torch.no_grad():
        other = EUk(classifier(), k=-1, seed=4)
        other.configure_model()
        assert not torch.equal(other.backbone.network.get_parameter("body.linear.weight"), fresh)
        assert float(other.backbone.network.get_buffer("normalize.mean")) == pytest.approx(0.3053)


@pytest.mark.parametrize("position", INSIDE_EPOCHS)
def test_a_run_resumes_inside_an_epoch(position: tuple[int, int], tmp_path: Path) -> None:
    """The frozen prefix travels with the checkpoint."""
    resumed_run(lambda b: EUk(b, k=3, optimizer=FAST), position, tmp_path)


def test_preset_builds() -> None:
    check_preset_builds("eu_k")


@pytest.mark.slow
def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(EUk, 5, 0.05, 0.97)
