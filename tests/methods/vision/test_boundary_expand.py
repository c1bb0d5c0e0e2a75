"""Boundary expand: the extra unit that is trained and not served, and whole runs."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from mu.methods import BoundaryExpand
from tests.support.equations import PLAIN, doubled, first_batch, log_softmax
from tests.support.equations_vision import all_rows
from tests.support.helpers import classifier, digits, fit
from tests.support.method_runs import check_class_is_forgotten, check_preset_runs, sgd


def test_boundary_expand_trains_an_extra_unit_and_serves_without_it(originals: Any) -> None:
    """Mutations that must fail: the extra unit not trained; the forget samples sent to class C − 1;
    the phantom served.
    """
    module = BoundaryExpand(classifier(originals["classifier"]), optimizer=PLAIN, norm="eval")
    task = digits()
    network = doubled(module.backbone)
    batch = first_batch(module, task)
    extra = deepcopy(module.extra).double()
    seen: list[Tensor] = []
    network.body.linear.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    logits = network(batch["forget"]["image"].double())
    everything = torch.cat([logits, seen[0] @ extra.weight.T + extra.bias], dim=1)
    loss = -log_softmax(everything)[:, 10].mean()
    parameters = [*network.parameters(), *extra.parameters()]
    expected = torch.autograd.grad(loss, parameters)
    before = [p.detach().double().clone() for _, p in module.trainable()]
    assert len(before) == len(parameters)
    fit(module, task, 1, max_steps=1)
    for old, (name, new), slope in zip(before, module.trainable(), expected, strict=True):
        torch.testing.assert_close(
            new.detach().double() - old,
            -slope,
            atol=1e-5,
            rtol=1e-4,
            msg=lambda text, name=name: f"{name}: {text}",
        )
    part = all_rows(task, "forget")
    assert module.served().eval().predict(part).shape == (24, 10)
    assert not [key for key in module.served().state_dict() if "extra" in key]


def test_preset_runs() -> None:
    check_preset_runs("boundary_expand")


def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(lambda b: BoundaryExpand(b, optimizer=sgd(5e-3)), 10, 0.9, 0.9)
