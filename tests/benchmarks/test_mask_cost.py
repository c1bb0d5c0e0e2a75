"""Time of SalUn's mask over a forget pass (at most 1.15), and of masked training (1.10).

The pass is the floor: fetch, augment, forward and backward in eval mode, over the same batches, and
nothing else. CPU time of the working thread, in turns (see `paired`).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer

from mu.methods import RandomLabel, SalUn
from mu.methods.components.masks import Saliency
from tests.benchmarks.conftest import Marks, RandomImages, resnet20, trainer
from tests.benchmarks.paired import Mark, paired

pytestmark = pytest.mark.slow
BATCH = 64
REPEATS = 6
EPOCHS = 4


class RepeatedMask(Callback):
    """Computes the mask several times over, before the first step."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, SalUn) and pl_module.mask is not None
        self.mark()
        for _ in range(REPEATS):
            pl_module.mask.chosen.fill_(False)  # type: ignore[operator]
            pl_module.mask.start(pl_module)
            self.mark()
        trainer.should_stop = True


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_saliency_mask_costs_a_pass(precision: Any, measured: Any, say: Any) -> None:
    """Fails when the threshold needs a sort, when the pass does more than differentiate, or when it
    forgets the trainer's precision.
    """
    half = precision == "bf16-mixed"
    data = RandomImages(forget=12 * BATCH, retain=BATCH, batch_size=BATCH)
    data.setup()

    def ours(mark: Mark) -> None:
        module = SalUn(resnet20(channels_last=half), mask=Saliency(keep=0.5))
        trainer(1, RepeatedMask(mark), limit_train_batches=1, precision=precision).fit(
            module, datamodule=data
        )
        assert module.mask is not None and abs(module.mask.share() - 0.5) < 1e-4

    def floor(mark: Mark) -> None:
        network = resnet20(channels_last=half).network.eval()
        augment = data.augmentation
        assert augment is not None
        order = [torch.arange(start, start + BATCH) for start in range(0, 12 * BATCH, BATCH)]
        visits = torch.zeros(BATCH, dtype=torch.int64)
        mark()
        for _ in range(REPEATS):
            for positions in order:
                part = augment(
                    {**data.datasets["forget"].__getitems__(positions), "visit": visits}, 0
                )  # type: ignore[attr-defined]
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    image = (
                        part["image"].to(memory_format=torch.channels_last)
                        if half
                        else part["image"]
                    )
                    loss = F.cross_entropy(network(image), part["label"])
                loss.backward()
            network.zero_grad()
            mark()

    result = measured(lambda: paired(ours, floor))
    say(
        f"mask, {precision} / forward and backward = {result.ratio:.4f} ({result.spread()})",
        ratio=result.ratio,
    )
    assert result.ratio <= 1.15


def test_masked_training_costs_little_more(measured: Any, say: Any) -> None:
    """Fails when gradients or weights are masked one by one, or converted anew in every step."""
    data = RandomImages(forget=4 * BATCH, retain=16 * BATCH, batch_size=BATCH)
    data.setup()

    def fit(method: Any) -> Any:
        def work(mark: Mark) -> None:
            trainer(EPOCHS, Marks(mark)).fit(method(resnet20()), datamodule=data)

        return work

    result = measured(lambda: paired(fit(SalUn), fit(RandomLabel), units=20))
    say(
        f"SalUn / RandomLabel, training = {result.ratio:.4f} ({result.spread()})",
        ratio=result.ratio,
    )
    assert result.ratio <= 1.10
