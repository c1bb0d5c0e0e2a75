"""Influence unlearning: its Newton step with a dense Fisher matrix, and whole runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mu.data.plan import plan_steps
from mu.functional.curvature import FisherSpectrum
from mu.methods import Influence
from mu.utils.errors import InputError
from tests.support.equations_vision import (
    all_rows,
    flat_parameters,
    linear_classifier,
    linear_gradients,
)
from tests.support.helpers import digits, fit
from tests.support.method_runs import check_class_is_forgotten, check_preset_runs


def curvature_samples(module: Influence, task: Any, count: int) -> dict[str, Tensor]:
    """The retain samples of the curvature, in their order."""
    steps = plan_steps(
        module.curvature_plan,
        0,
        {"retain": len(task.datasets["retain"])},
        {"retain": 1},
        module.seed,
    )
    positions = [int(step.parts["retain"].positions[0]) for step in steps]
    assert len(set(positions)) == len(positions) == count
    return task.datasets["retain"].__getitems__(positions)


@pytest.mark.parametrize("way", ["hooks", "vmap", "loop"])
@pytest.mark.parametrize(("samples", "damping"), [(12, 0.5), (500, 0.02)])
def test_influence_is_a_newton_step_with_a_dense_fisher_matrix(
    samples: int, damping: float, way: Any
) -> None:
    """Jia et al., NeurIPS 2023. Mutations that must fail: the sign of v; N_f / N
    left out; H from forget samples.
    """
    task = digits()
    module = Influence(
        linear_classifier(),
        alpha=0.7,
        damping=damping,
        samples=samples,
        batch_size=5,
        per_sample=way,
    )
    forget = all_rows(task, "forget")
    retain = all_rows(task, "retain")
    g_f, g_r = linear_gradients(module.backbone, forget), linear_gradients(module.backbone, retain)  # type: ignore[arg-type]
    share = len(g_f) / (len(g_f) + len(g_r))
    v = share * (g_f.mean(0) - g_r.mean(0))
    g = linear_gradients(module.backbone, curvature_samples(module, task, min(samples, len(g_r))))  # type: ignore[arg-type]
    hessian = damping * torch.eye(g.shape[1], dtype=torch.float64)
    for row in g:
        hessian += torch.outer(row, row) / len(g)
    before = flat_parameters(module.backbone)  # type: ignore[arg-type]
    step = 0.7 * torch.linalg.solve(hessian, v)
    fit(module, task, 1)
    assert step.abs().max() > 1e-3
    torch.testing.assert_close(
        flat_parameters(module.backbone) - before, step, atol=2e-6, rtol=1e-4
    )  # type: ignore[arg-type]


def test_settings_without_an_inverse_are_refused() -> None:
    for wrong in ({"damping": 0.0}, {"samples": 0}, {"batch_size": 0}, {"loss_rise": 0.0}):
        with pytest.raises(InputError):
            Influence(linear_classifier(), **wrong)  # type: ignore[arg-type]


def test_preset_runs() -> None:
    check_preset_runs("influence")


def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(
        lambda b: Influence(b, alpha=1.5, damping=0.01, per_sample="hooks"), 1, 0.3, 0.9
    )


@pytest.mark.parametrize("loss_rise", [0.05, 0.5])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_damping_is_the_smallest_that_keeps_the_retain_loss(loss_rise: float, scale: float) -> None:
    """Mutations that must fail it: a fixed damping; weights left at a trial step."""
    task = digits()
    backbone = linear_classifier()
    with torch.no_grad():
        for weight in backbone.parameters():
            weight.mul_(scale)
    module = Influence(backbone, loss_rise=loss_rise, samples=20)
    task.setup()
    rows = curvature_samples(module, task, 20)

    def loss() -> float:
        with torch.no_grad():
            return float(backbone.loss(rows)[0].mean())

    before = loss()
    start = flat_parameters(backbone).clone()
    fit(module, task, 1)
    rise = loss() - before
    assert rise <= loss_rise + 1e-5
    # a step of the next smaller damping rises more: this one is within a factor of the limit
    with torch.no_grad():
        step = flat_parameters(backbone) - start
        o = 0
        for weight in backbone.parameters():
            weight.add_(2 * step[o : o + weight.numel()].view_as(weight))
            o += weight.numel()
    assert loss() - before > loss_rise


def test_several_dampings_are_solved_from_one_spectrum() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    vector = torch.randn(12, generator=generator, dtype=torch.float64)
    spectrum = FisherSpectrum(gradients)
    fisher = gradients.T @ gradients / 5
    assert spectrum.largest == pytest.approx(float(torch.linalg.eigvalsh(fisher)[-1]))
    for damping in (1e-3, 0.1, 10.0):
        dense = torch.linalg.solve(fisher + damping * torch.eye(12, dtype=torch.float64), vector)
        torch.testing.assert_close(spectrum.solve(vector, damping), dense)
