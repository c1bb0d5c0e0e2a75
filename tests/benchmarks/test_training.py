"""Time of an epoch on a ResNet-20 over a bare PyTorch loop: at most 1.05.

Both sides show the same images, augmented the same way, to the same network, and step the same
optimizer; that they do is asserted on the weights at the end. The bare loop finds its order and its
visits ready; ours makes its plan in the measured time. Ours is a whole fit by a Trainer as `mu fit`
makes it (without files, bar and curves), in full precision and as the study of CIFAR-10 has it
(bf16, channels last). See `paired` for how CPU time is taken and compared.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mu.core.module import UnlearningModule
from mu.data.plan import plan_steps
from mu.methods import FineTune, RandomLabel
from mu.utils import rng
from tests.benchmarks.conftest import Marks, RandomImages, resnet20, trainer
from tests.benchmarks.paired import Mark, paired

pytestmark = pytest.mark.slow
EPOCHS = 4
BATCH = 64
STEPS = 24
BOUND = 1.05


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    ("method", "forget", "retain"),
    [(FineTune, 1, 24), (RandomLabel, 6, 18)],
    ids=["FineTune", "RandomLabel"],
)
def test_an_epoch_costs_what_a_bare_loop_costs(
    method: Any, forget: int, retain: int, precision: Any, measured: Any, say: Any
) -> None:
    """Fails when the loader, the hooks or the logging take more than a twentieth of the
    arithmetic.
    """
    data = RandomImages(forget=forget * BATCH, retain=retain * BATCH, batch_size=BATCH)
    data.setup()
    half = precision == "bf16-mixed"
    module: UnlearningModule = method(resnet20(channels_last=half))
    names = module.plan.reads()
    sizes = {name: data.sizes[name] for name in names}
    batch = dict.fromkeys(names, BATCH)
    orders = [
        [
            (name, torch.as_tensor(rows.positions), torch.as_tensor(rows.visits))
            for step in plan_steps(module.plan, epoch, sizes, batch, 0)
            for name, rows in step.parts.items()
        ]
        for epoch in range(EPOCHS)
    ]

    def ours(mark: Mark) -> Any:
        trainer(EPOCHS, Marks(mark), precision=precision).fit(module, datamodule=data)
        return module.backbone.network

    def bare(mark: Mark) -> Any:
        network = resnet20(channels_last=half).network
        augment = data.augmentation
        assert augment is not None
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        network.train()
        for order in orders:
            for name, positions, visits in order:
                mark()
                part = augment({**data.datasets[name].__getitems__(positions), "visit": visits}, 0)  # type: ignore[attr-defined]
                label = (
                    part["label"]
                    if name == "retain"
                    else rng.integers(0, part["index"], visits, "substitute-label", 10)
                )
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    image = (
                        part["image"].to(memory_format=torch.channels_last)
                        if half
                        else part["image"]
                    )
                    loss = F.cross_entropy(network(image), label)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        mark()
        return network

    pair = measured(lambda: paired(ours, bare, units=STEPS))
    milliseconds = 1e3 * pair.difference
    say(
        f"{method.__name__}, {precision} / bare loop = {pair.ratio:.4f} ({pair.spread()}; "
        f"{milliseconds:+.2f} ms a step)",
        ratio=pair.ratio,
        milliseconds=milliseconds,
    )
    distances = [
        (a.double() - b.double()).abs().max()
        for a, b in zip(*(n.state_dict().values() for n in pair.results), strict=True)
    ]
    assert max(distances) < 1e-4, "the two sides did not compute the same"
    assert pair.ratio <= BOUND
