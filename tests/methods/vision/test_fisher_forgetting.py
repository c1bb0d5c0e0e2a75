"""Fisher forgetting: its Fisher matrix, its noise, the rows it erases, and whole runs."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

import tasks
from mu.methods import FisherForgetting
from mu.utils.errors import InputError
from tests.support.equations import log_softmax
from tests.support.equations_vision import all_rows, linear_classifier, linear_gradients
from tests.support.helpers import different, digits, fit, weights
from tests.support.method_runs import check_class_is_forgotten, check_preset_runs


class RecordsFisher(FisherForgetting):
    """Fisher forgetting that records its Fisher matrix."""

    def fisher(self) -> dict[str, Tensor]:
        self.recorded = super().fisher()
        return self.recorded


@pytest.mark.parametrize("batch_size", [7, 64])
@pytest.mark.parametrize("way", ["hooks", "vmap", "loop"])
def test_fisher_is_per_sample_and_over_all_labels(way: Any, batch_size: int) -> None:
    """F = E_x Σ_y p(y|x) (∂ℓ/∂θ)². Mutations that must fail: the mean gradient squared; the true
    label only; the weight p left out.
    """
    module = RecordsFisher(linear_classifier(), batch_size=batch_size, per_sample=way)
    task = digits()
    backbone = deepcopy(module.backbone)
    retain = all_rows(task, "retain")
    logits = backbone.network[1](retain["image"].flatten(1)).double()  # type: ignore[index,operator]
    p = log_softmax(logits).exp().detach()
    expected = sum(
        p[:, y, None] * linear_gradients(backbone, retain, label=y).square() for y in range(10)
    ).mean(0)  # type: ignore[arg-type,union-attr]
    fit(module, task, 1)
    torch.testing.assert_close(
        torch.cat([f.double().flatten() for f in module.recorded.values()]),
        expected,
        atol=1e-9,
        rtol=1e-4,
    )


def test_the_noise_has_its_variance_and_depends_on_the_seed_alone() -> None:
    """Mutation that must fail: noise from torch's own generator, which is another on every rank."""
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(runs))
        runs.append(
            fit(
                RecordsFisher(linear_classifier(), alpha=1e-3, seed=seed, per_sample="hooks"),
                digits(),
                1,
            )
        )
    assert different(weights(runs[0].backbone), weights(runs[1].backbone)) == []
    assert len(different(weights(runs[0].backbone), weights(runs[2].backbone))) == 2
    module: Any = runs[0]
    again = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        again.append(module.edited())
    assert different(*again) == []
    # a matrix with C rows: clamped to 100, averaged over each row, times ten
    fisher = module.recorded["network.1.weight"].double()
    variance = 10 * 1e-3 * (1 / (fisher + 1e-8)).clamp(max=100).mean(1, keepdim=True)
    noise = (
        module.backbone.network[1].weight - linear_classifier().network[1].weight
    ).detach().double() / variance.sqrt()  # type: ignore[index]
    assert abs(noise.mean().item()) < 0.15 and abs(noise.std().item() - 1) < 0.1
    assert not torch.allclose(noise[0], noise[1])


def test_rows_are_erased_only_where_whole_classes_are_forgotten() -> None:
    """OPTML erases the last class when 4,500 samples are random. Must fail if the selector is not
    asked.
    """
    cases: list[tuple[Any, dict[str, Any], list[int]]] = [
        (tasks.ByClass([3, 5]), {}, [3, 5]),
        (tasks.ByClass(9), {}, [9]),
        (tasks.ByClass(3, count=2), {}, []),
        (tasks.RandomFraction(0.4), {}, []),
        (tasks.RandomFraction(0.4), {"forget_class": 2}, [2]),
    ]
    for selector, arguments, erased in cases:
        module = FisherForgetting(
            linear_classifier(), alpha=1e-14, row_variance=0.0, per_sample="hooks", **arguments
        )
        before = weights(module.backbone)
        fit(module, digits(selector=selector), 1)
        for name, value in module.backbone.state_dict().items():
            assert [row for row in range(10) if not bool(value[row].any())] == erased
            remaining = [row for row in range(10) if row not in erased]
            assert torch.allclose(value[remaining], before[name][remaining], atol=1e-4)
    with pytest.raises(InputError, match="no class 10"):
        fit(FisherForgetting(linear_classifier(), forget_class=10), digits(), 1)


def test_preset_runs() -> None:
    check_preset_runs("fisher_forgetting")


def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(
        lambda b: FisherForgetting(b, alpha=1e-7, per_sample="hooks"), 1, 0.0, 0.97
    )
