"""SalUn: random labels on the weights whose forget gradient is largest, and its presets."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from mu.methods.components.masks import Saliency
from mu.methods.components.substitutes import UniformLabel
from mu.methods.general.salun import SalUn
from tests.support.equations import PLAIN, cross_entropy, doubled, first_batch, gradient
from tests.support.helpers import classifier, digits, fit, weights
from tests.support.method_runs import check_preset_builds


def test_the_step_is_the_random_label_step_on_the_largest_forget_gradients() -> None:
    """Mutations: the retain gradient; a mask of each layer by itself; the smallest gradients."""
    module = SalUn(classifier(), mask=Saliency(keep=0.3), optimizer=PLAIN, norm="eval")
    task = digits(batch_size=24)  # one batch of forget
    batch = first_batch(module, task)
    network = doubled(module.backbone)
    rows = task.datasets["forget"].__getitems__(list(range(24)))
    saliency = gradient(network, cross_entropy(network, rows))
    sizes = torch.cat([value.abs().flatten() for value in saliency.values()])
    threshold = sizes.sort(descending=True).values[round(0.3 * len(sizes)) - 1]
    law = UniformLabel()
    law.setup(module.backbone, None)
    part = {"image": batch["forget"]["image"], "label": law.draw(batch["forget"], 0)}
    slopes = gradient(network, cross_entropy(network, part))
    before = weights(module.backbone)
    fit(module, task, max_steps=1, epochs=1)
    for name, weight in cast(Any, module.backbone).network.named_parameters():
        step = (weight.detach() - before[f"network.{name}"]).double()
        mask = saliency[name].abs() >= threshold
        torch.testing.assert_close(step, -slopes[name] * mask, atol=1e-5, rtol=1e-4)
        assert not step[~mask].any()


def test_the_default_mask_keeps_half_of_the_weights() -> None:
    module = fit(SalUn(classifier()), epochs=1)
    assert isinstance(module.mask, Saliency)
    assert module.mask.share() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("name", ["salun", "salun_reference_code"])
def test_preset_builds(name: str) -> None:
    check_preset_builds(name)
