"""Time of SSD on a ResNet-20 over forward and backward on the data it reads: at most 1.15.

The floor fetches the same batches and computes loss and gradient in eval mode, and nothing else. Of
our fit all is counted from the first batch to the end, the edit included. CPU time of the working
thread, batch by batch in turns (see `paired`).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mu.data.plan import plan_steps
from mu.methods import SSD
from tests.benchmarks.conftest import Marks, RandomImages, resnet20, trainer
from tests.benchmarks.paired import Mark, paired

pytestmark = pytest.mark.slow
REPEATS = 4


def test_ssd_costs_a_pass(measured: Any, say: Any) -> None:
    """Fails when squares are taken weight by weight, or when a pass reads what it does not need."""
    data = RandomImages(forget=256, retain=704, batch_size=64)
    data.setup()
    sizes = {name: data.sizes[name] for name in ("forget", "retain")}
    batches = plan_steps(SSD(resnet20()).plan, 0, sizes, dict.fromkeys(sizes, 64), 0)

    def ours(mark: Mark) -> None:
        for _ in range(REPEATS):
            trainer(1, Marks(mark)).fit(SSD(resnet20()), datamodule=data)

    def floor(mark: Mark) -> None:
        network = resnet20().network.eval()
        weights = list(network.parameters())
        for _ in range(REPEATS):
            mark(counted=False)
            for step in batches:
                parts = [
                    data.datasets[name].__getitems__(torch.as_tensor(rows.positions))  # type: ignore[attr-defined]
                    for name, rows in step.parts.items()
                ]
                image, label = (
                    torch.cat([part[field] for part in parts]) for field in ("image", "label")
                )
                torch.autograd.grad(F.cross_entropy(network(image), label), weights)
                mark()

    result = measured(lambda: paired(ours, floor, units=len(batches)))
    say(f"SSD / forward and backward = {result.ratio:.4f} ({result.spread()})", ratio=result.ratio)
    assert result.ratio <= 1.15
