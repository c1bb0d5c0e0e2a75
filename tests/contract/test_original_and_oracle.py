"""Contract of original and oracle: seeds, normalisation, recipe, training set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mu.methods import Retrain, Train
from tests.support.helpers import (
    classifier,
    different,
    digits,
    fit,
    weights,
)


def test_new_weights_come_from_the_seed_of_the_run() -> None:
    """Fails when `init_seed` of the backbone decides an oracle's weights: all oracles would be
    one.
    """
    backbone = classifier(init_seed=0)
    first, again, two = (weights(backbone.fresh(seed)) for seed in (1, 1, 2))
    assert different(first, again) == []
    assert different(first, two)
    assert different(first, weights(backbone))
    assert (
        backbone.fresh(1).network.normalize.mean.tolist()
        == backbone.network.normalize.mean.tolist()
    )  # type: ignore[union-attr]


def test_the_oracle_keeps_the_normalisation_that_came_with_the_weights(tmp_path: Path) -> None:
    """Fails when retraining sees other pixels than the original did."""
    from safetensors.torch import save_file

    source = classifier()
    body: Any = source.network.body  # type: ignore[union-attr]
    save_file(
        body.state_dict(), tmp_path / "m.safetensors", metadata={"mean": "[0.3]", "std": "[0.4]"}
    )
    loaded = classifier(weights=str(tmp_path / "m.safetensors"), mean=None, std=None)
    network: Any = loaded.fresh(3).network
    assert network.normalize.mean.tolist() == pytest.approx([0.3])


def test_original_and_oracle_have_one_recipe() -> None:
    """Fails when seeds, weights or the forget set enter the recipe, or an option that matters does
    not.
    """

    def recipe(make: Any, **changes: Any) -> str:
        return fit(make(classifier(init_seed=3)), digits(**changes), epochs=1).recipe_hash()

    original_recipe = recipe(Train)
    assert (
        original_recipe
        == recipe(lambda b: Train(b, seed=9))
        == recipe(Retrain)
        == recipe(Train, split_seed=3)
    )
    assert original_recipe != recipe(Train, batch_size=20)
    assert original_recipe != recipe(
        lambda b: Train(b, optimizer=lambda params: torch.optim.SGD(params, lr=0.02))
    )
    assert original_recipe != recipe(lambda b: Train(b, norm="eval"))


def test_the_original_does_not_depend_on_what_will_be_forgotten() -> None:
    """Fails when the order of training shows the forget set."""
    import tasks

    models = [
        fit(
            Train(classifier()),
            tasks.Digits(selector, train_size=61, validation_size=11, batch_size=10),
            1,
        )
        for selector in (tasks.RandomFraction(0.4), tasks.ByClass(3))
    ]
    assert different(weights(models[0]), weights(models[1])) == []
