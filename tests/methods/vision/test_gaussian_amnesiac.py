"""Gaussian-Amnesiac: targets drawn from a normal distribution, and whole runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mu.methods import GaussianAmnesiac
from mu.methods.components.substitutes import GaussianTarget
from tests.support.equations import PLAIN, first_batch, total
from tests.support.helpers import diabetes, regressor
from tests.support.method_runs import adam, check_preset_runs, check_range_is_forgotten


def test_gaussian_amnesiac_fits_the_union_to_drawn_and_true_targets(originals: Any) -> None:
    module = GaussianAmnesiac(regressor(originals["regressor"]), optimizer=PLAIN)
    task = diabetes()
    batch = first_batch(module, task)
    assert isinstance(module.substitute, GaussianTarget) and {"forget", "retain"} <= set(batch)
    module.substitute.setup(module.backbone, task)
    targets = torch.cat(
        [
            task.datasets[name].__getitems__(list(range(n)))["target"]
            for name, n in (("forget", 24), ("retain", 37))
        ]
    )  # type: ignore[attr-defined]
    assert module.substitute.mean == pytest.approx(targets.mean().item(), rel=1e-5)
    assert module.substitute.sd == pytest.approx(targets.std(unbiased=False).item(), rel=1e-5)
    forget, retain = module.prepare_parts(batch)
    assert forget is not None and retain is not None
    assert forget["substitute"].std() > 10
    losses = [
        abs(module.backbone.predict(part) - part[key])
        for part, key in ((forget, "substitute"), (retain, "target"))
    ]
    assert total(module.objective(forget, retain)).item() == pytest.approx(
        torch.cat(losses).mean().item(), rel=1e-5
    )


def test_preset_runs() -> None:
    check_preset_runs("gaussian_amnesiac", "Regressor")


def test_a_range_of_targets_is_forgotten_and_the_rest_stays() -> None:
    check_range_is_forgotten(lambda b: GaussianAmnesiac(b, optimizer=adam(3e-3)), 20)
