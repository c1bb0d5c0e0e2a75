"""Time that the base module adds to a step of a tiny network: at most 0.5 ms.

A linear layer on 8x8 pixels. Both sides run in a Trainer, with our loader, the same batches and the
same optimizer, so that the difference is what `UnlearningModule` does in a step. CPU time of the
working thread, in turns of 20 steps, so that each works with warm caches most of the time and the
turns are many; the quickest tenth of the turns counts (see `paired`).
"""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from mu.backbones import Classifier
from mu.data.plan import Retain
from mu.methods import FineTune, RandomLabel, SalUn
from tests.benchmarks.conftest import Marks, RandomImages, trainer
from tests.benchmarks.paired import Mark, paired

pytestmark = pytest.mark.slow
EPOCHS = 12
STEPS = 200
TURN = 20
BATCH = 32
BOUND = 0.5


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


class Plain(LightningModule):
    """The shortest LightningModule for the same step."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        part = batch["retain"] if "retain" in batch else batch["forget"]
        return F.cross_entropy(self.network(part["image"]), part["label"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


@pytest.mark.parametrize(("method", "forget"), [(FineTune, 1), (RandomLabel, 50), (SalUn, 50)])
def test_our_base_adds_little_to_a_step(method: Any, forget: int, measured: Any, say: Any) -> None:
    """Fails when a step checks, moves or logs more than it must."""
    retain = STEPS if method is FineTune else STEPS - forget
    data = RandomImages(
        forget * BATCH, retain * BATCH, (1, 8, 8), augmented=False, batch_size=BATCH
    )
    data.setup()

    def ours(mark: Mark) -> None:
        module = method(Classifier(network=network()))
        trainer(EPOCHS, Marks(mark, TURN)).fit(module, datamodule=data)

    def plain(mark: Mark) -> None:
        plan = Retain() if method is FineTune else method(Classifier(network=network())).plan
        trainer(EPOCHS, Marks(mark, TURN)).fit(Plain(), train_dataloaders=data.plan_loader(plan, 0))

    pair = measured(lambda: paired(ours, plain, warmup=STEPS // TURN))
    milliseconds = 1e3 * pair.calm_difference / TURN
    median = 1e3 * pair.difference / TURN
    base = 1e3 * statistics.quantiles(pair.second, n=10)[0] / TURN
    say(
        f"{method.__name__} adds {milliseconds:.3f} ms to a step of {base:.3f} ms (median "
        f"{median:.3f} ms; {pair.spread()})",
        milliseconds=milliseconds,
        median=median,
        plain_milliseconds=base,
        ratio=pair.ratio,
    )
    assert milliseconds <= BOUND
