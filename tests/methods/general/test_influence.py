"""Influence unlearning: its Newton step with a dense Fisher matrix, and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tasks
from mu.backbones import Classifier
from mu.data.batch import fetch
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

SHARED = Path(__file__).parents[4] / "shared" / "data"


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


@pytest.mark.data
@pytest.mark.slow
def test_the_default_forgets_a_class_of_a_published_resnet20(tmp_path: Path) -> None:
    """One class of CIFAR-10, 10,000 training images, about a minute: 34.6 % of the class and 99.1 %
    of the rest stay. Fails when the damping destroys the model, or moves nothing.

    Needs `../shared/data/cifar10_resnet/resnet20.safetensors` and `../shared/data/cifar10/` beside
    the repository.
    """
    file = SHARED / "cifar10_resnet" / "resnet20.safetensors"
    if not file.exists() or not (SHARED / "cifar10").exists():
        pytest.skip(f"needs {file} and {SHARED / 'cifar10'}")
    labels = np.load(SHARED / "cifar10" / "labels.npz")
    np.savez(
        tmp_path / "cifar10.npz",
        train_images=tiles(SHARED / "cifar10" / "train_1.webp"),
        train_labels=labels["train"][:10_000].astype(np.int64),
        test_images=tiles(SHARED / "cifar10" / "test.webp")[:2000],
        test_labels=labels["test"][:2000].astype(np.int64),
    )
    task = tasks.ArrayImages(
        str(tmp_path / "cifar10.npz"), tasks.ByClass(0), split_seed=2, batch_size=256
    )
    backbone = Classifier("resnet20_cifar", num_classes=10, mean="imagenet", weights=str(file))
    fit(Influence(backbone), task, 1)
    assert accuracy(backbone, task, "retain") > 0.97
    assert accuracy(backbone, task, "test") > 0.88
    assert accuracy(backbone, task, "forget") < 0.6


def tiles(sheet: Path) -> np.ndarray:
    """Images `[10000, 32, 32, 3]` of a sheet."""
    pixels = np.asarray(Image.open(sheet).convert("RGB"))
    return pixels.reshape(100, 32, 100, 32, 3).swapaxes(1, 2).reshape(10_000, 32, 32, 3)


def accuracy(backbone: Classifier, task: Any, part: str) -> float:
    """Share of the first 2,000 samples of a part that are classified right."""
    batch = fetch(task.datasets[part], np.arange(min(2000, len(task.datasets[part]))))
    with torch.no_grad():
        logits = [backbone.eval().predict({"image": rows}) for rows in batch["image"].split(250)]
    return float((torch.cat(logits).argmax(1) == batch["label"]).float().mean())
