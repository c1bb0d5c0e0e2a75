"""Selective Synaptic Dampening: its edit against gradients written by hand, and its preset."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import tasks
from mu.backbones import Classifier
from mu.methods.general.ssd import SSD
from tests.support.equations_vision import (
    all_rows,
    flat_parameters,
    linear_classifier,
    linear_gradients,
)
from tests.support.helpers import classifier, digits, fit
from tests.support.method_runs import check_preset_builds


def importance(backbone: Classifier, part: dict[str, Tensor], size: int) -> Tensor:
    """Mean over batches of `size` samples of the squared batch-mean gradient, `[P]`."""
    gradients = linear_gradients(backbone, part)
    return torch.stack([batch.mean(0).square() for batch in gradients.split(size)]).mean(0)


@pytest.mark.parametrize("lam", [1.0, 0.4])
def test_weights_are_dampened_by_the_ratio_of_importances(lam: float) -> None:
    """Mutations: per-sample squares; the retain set in place of all data; the ratio not bounded."""
    task = digits()
    module = SSD(linear_classifier(), alpha=0.9, lam=lam, forget_batch_size=24, all_batch_size=61)
    forget = all_rows(task, "forget")
    retain = all_rows(task, "retain")
    both = {name: torch.cat([forget[name], retain[name]]) for name in ("image", "label")}
    of_forget = importance(module.backbone, forget, 24)
    of_all = importance(module.backbone, both, 61)
    factor = (lam * of_all / of_forget).clamp(max=1.0)
    before = flat_parameters(module.backbone)
    selected = of_forget > 0.9 * of_all
    fit(module, task, 1)
    assert 0.1 < selected.float().mean() < 0.9
    expected = torch.where(selected, factor * before, before)
    torch.testing.assert_close(flat_parameters(module.backbone), expected, atol=1e-6, rtol=1e-4)


def test_the_importance_depends_on_the_batch_size() -> None:
    """The gradient is averaged over a batch before it is squared."""
    task = digits()
    module = SSD(linear_classifier(), alpha=0.9, forget_batch_size=10, all_batch_size=61)
    forget = all_rows(task, "forget")
    retain = all_rows(task, "retain")
    both = {name: torch.cat([forget[name], retain[name]]) for name in ("image", "label")}
    of_forget = importance(module.backbone, forget, 10)
    of_all = importance(module.backbone, both, 61)
    before = flat_parameters(module.backbone)
    fit(module, task, 1)
    factor = (of_all / of_forget).clamp(max=1.0)
    expected = torch.where(of_forget > 0.9 * of_all, factor * before, before)
    torch.testing.assert_close(flat_parameters(module.backbone), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("selector", [tasks.RandomFraction(0.4), tasks.ByClass([3, 7])], ids=repr)
def test_batches_are_grouped_as_in_the_released_scripts(selector: tasks.RandomFraction) -> None:
    """Mutations that must fail it: a shuffled union; forget before retain; no order by class."""
    task = digits(selector=selector)
    module = SSD(linear_classifier(), alpha=0.9, forget_batch_size=4, all_batch_size=8)
    parts = [all_rows(task, name) for name in ("retain", "forget")]
    if isinstance(selector, tasks.ByClass):
        orders = [part["label"].argsort(stable=True) for part in parts]
        parts = [
            {name: part[name][order] for name in ("image", "label")}
            for part, order in zip(parts, orders, strict=True)
        ]
    both = {name: torch.cat([part[name] for part in parts]) for name in ("image", "label")}
    of_forget = importance(module.backbone, parts[1], 4)
    of_all = importance(module.backbone, both, 8)
    before = flat_parameters(module.backbone)
    fit(module, task, 1)
    factor = (of_all / of_forget).clamp(max=1.0)
    expected = torch.where(of_forget > 0.9 * of_all, factor * before, before)
    torch.testing.assert_close(flat_parameters(module.backbone), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("selector", "size"), [(tasks.RandomFraction(0.4), 128), (tasks.ByClass(3), 64)], ids=repr
)
def test_batch_sizes_are_those_of_the_released_scripts(
    selector: tasks.RandomFraction, size: int
) -> None:
    module = SSD(classifier(), alpha=0.5)
    fit(module, digits(selector=selector), 1)
    assert [phase.batch_size for phase in module.plan.parts] == [size, size]  # type: ignore[attr-defined]


def test_preset_builds() -> None:
    check_preset_builds("ssd")
