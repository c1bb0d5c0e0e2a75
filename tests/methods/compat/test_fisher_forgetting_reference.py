"""Fisher forgetting as in the released code: squares of batch means, and whole runs."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from mu.methods.compat import FisherForgettingReference
from tests.support.equations import log_softmax
from tests.support.equations_vision import all_rows, linear_classifier, linear_gradients
from tests.support.helpers import digits, fit
from tests.support.method_runs import check_class_is_forgotten, check_preset_runs


def test_the_reference_squares_batch_means() -> None:
    """OPTML: Σ_y (mean_b p(y|x_b)) (∇ mean_b ℓ(x_b, y))², averaged over batches; so the batch size
    matters.
    """

    class RecordsFisher(FisherForgettingReference):
        def fisher(self) -> dict[str, Tensor]:
            self.recorded = super().fisher()
            return self.recorded

    module = RecordsFisher(linear_classifier(), batch_size=10)
    task = digits()
    backbone = deepcopy(module.backbone)
    retain = all_rows(task, "retain")
    batches = []
    for start in range(0, len(retain["label"]), 10):
        part = {k: value[start : start + 10] for k, value in retain.items()}
        p = log_softmax(backbone.network[1](part["image"].flatten(1)).double()).exp().detach()  # type: ignore[index,operator]
        gradients = [linear_gradients(backbone, part, label=y).mean(0) for y in range(10)]  # type: ignore[arg-type]
        batches.append(sum(p[:, y].mean() * gradients[y].square() for y in range(10)))
    assert len(batches) == 4
    fit(module, task, 1)
    fisher = torch.cat([f.double().flatten() for f in module.recorded.values()])
    torch.testing.assert_close(fisher, torch.stack(batches).mean(0), atol=1e-9, rtol=1e-4)  # type: ignore[arg-type]


def test_preset_runs() -> None:
    check_preset_runs("fisher_forgetting_reference_code")


def test_a_class_is_forgotten_and_the_rest_stays() -> None:
    check_class_is_forgotten(lambda b: FisherForgettingReference(b, alpha=1e-9), 1, 0.0, 0.97)
