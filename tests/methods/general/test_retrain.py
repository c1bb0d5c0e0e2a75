"""Retraining without the forget set: new weights by the seed, its step, and its preset."""

from __future__ import annotations

from typing import Any, cast

from mu.methods.general.retrain import Retrain
from tests.support.equations import PLAIN, close, cross_entropy, doubled, first_batch, gradient
from tests.support.helpers import classifier, different, digits, fit, weights
from tests.support.method_runs import check_preset_builds


def test_the_first_weights_are_those_of_the_seed(originals: Any) -> None:
    """Mutation: the original's weights are kept."""
    modules = [Retrain(classifier(originals["classifier"]), seed=seed) for seed in (3, 3, 4)]
    for module in modules:
        module.configure_model()
    first, again, other = (weights(module.backbone) for module in modules)
    assert different(first, weights(modules[0].backbone.fresh(3))) == []
    assert different(first, again) == [] and different(first, other)
    assert different(first, originals["classifier"])


def test_a_step_descends_the_retain_loss_from_new_weights() -> None:
    """Mutation: the forget part is read."""
    module = Retrain(classifier(), seed=3, optimizer=PLAIN, norm="eval")
    network = doubled(module.backbone.fresh(3))
    task = digits()
    batch = first_batch(module, task)
    assert set(batch) & {"forget", "retain"} == {"retain"}
    expected = gradient(network, cross_entropy(network, batch["retain"]))
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    fit(module, task, max_steps=1, epochs=1)
    steps = [
        p.detach().double() - start[name]
        for name, p in cast(Any, module.backbone).network.named_parameters()
    ]
    close(steps, {name: -slope for name, slope in expected.items()})


def test_preset_builds() -> None:
    check_preset_builds("retrain")
