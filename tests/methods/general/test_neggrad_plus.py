"""NegGrad+: its two weights, its forward passes, its preset, and how far it forgets a class."""

from __future__ import annotations

import copy

import pytest
import torch

from mu.methods.bases.joint import predictions
from mu.methods.general.neggrad_plus import NegGradPlus
from tests.support.equations import PLAIN, cross_entropy, first_batch, moved_as
from tests.support.helpers import classifier, digits
from tests.support.method_runs import check_class_is_forgotten, check_preset_builds


@pytest.mark.parametrize("a", [0.95, 0.3])
def test_neggrad_plus_weighs_retain_by_a_and_forget_by_one_minus_a(a: float) -> None:
    """Must fail if the two weights are exchanged (the naming trap)."""
    moved_as(
        NegGradPlus(classifier(), retain_weight=a, optimizer=PLAIN, norm="eval"),
        lambda net, batch: (
            a * cross_entropy(net, batch["retain"]) - (1 - a) * cross_entropy(net, batch["forget"])
        ),
    )


def test_neggrad_plus_is_equal_by_one_forward_pass_and_by_two() -> None:
    """One forward pass where nothing mixes the parts; two where batch norm would."""
    module = NegGradPlus(classifier(), norm="eval")
    batch = first_batch(module, digits())
    calls = []
    module.backbone.network.register_forward_hook(lambda *_: calls.append(1))
    module.set_mode()
    joint = predictions(module.backbone, batch["forget"], batch["retain"])
    assert len(calls) == 1
    for part, prediction in zip(("forget", "retain"), joint, strict=True):
        torch.testing.assert_close(prediction, module.backbone.predict(batch[part]))
    module.backbone.train()
    calls.clear()
    apart = predictions(module.backbone, batch["forget"], batch["retain"])
    assert len(calls) == 2
    for part, prediction in zip(("forget", "retain"), apart, strict=True):
        assert torch.equal(prediction, module.backbone.predict(batch[part]))


def test_neggrad_plus_passes_retain_forward_before_forget() -> None:
    """Mutation that must fail it: predictions(self.backbone, forget, retain)."""
    module = NegGradPlus(classifier(), norm="train")
    batch = first_batch(module, digits())
    module.set_mode()
    by_hand = copy.deepcopy(module.backbone)
    for part in ("retain", "forget"):
        by_hand.predict(batch[part])
    module.objective(batch["forget"], batch["retain"])
    buffers = dict(module.backbone.named_buffers())
    assert any("running_mean" in name for name in buffers)
    for name, value in by_hand.named_buffers():
        assert torch.equal(value, buffers[name]), name


def test_preset_builds() -> None:
    check_preset_builds("neggrad_plus")


@pytest.mark.slow
def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(lambda b: NegGradPlus(b, retain_weight=0.7), 5, 0.4, 0.97)
