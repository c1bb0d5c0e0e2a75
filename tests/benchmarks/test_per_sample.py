"""Time of per-sample gradient squares by each strategy, over a batched backward pass.

CPU time of the working thread, call by call in turns (see `paired`). The loop over single samples
is what nobody should have to wait for; the batched forward and backward is the floor that no way
can be below by much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mu.backbones import Classifier
from mu.core.gradients.per_sample import PerSample
from mu.data.batch import Batch
from tests.benchmarks.conftest import resnet20
from tests.benchmarks.paired import Mark, Paired, paired

pytestmark = pytest.mark.slow
MODELS: dict[str, tuple[Callable[[], Classifier], int, int]] = {
    "resnet20": (resnet20, 64, 9),
    "resnet18": (lambda: Classifier("resnet18_cifar", mean="cifar10", init_seed=0), 16, 4),
}
"""The network, the samples of a call, the rounds."""


def setting(model: str) -> tuple[Classifier, Batch, int]:
    """The network in eval mode, a batch of random images, and the rounds."""
    make, size, rounds = MODELS[model]
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.rand(size, 3, 32, 32, generator=generator),
        "label": torch.randint(0, 10, (size,), generator=generator),
    }
    return make().eval(), batch, rounds


def repeated(action: Callable[[], Any], rounds: int) -> Callable[[Mark], None]:
    def work(mark: Mark) -> None:
        mark(counted=False)
        for _ in range(rounds):
            action()
            mark()

    return work


def way(backbone: Classifier, choose: Any) -> PerSample:
    return PerSample(
        backbone, list(backbone.named_parameters()), lambda batch: backbone.loss(batch)[0], choose
    )


@pytest.mark.parametrize("model", ["resnet20", "resnet18"])
def test_it_costs_less_than_a_loop(model: str, measured: Any, say: Any) -> None:
    """Fails when the chosen way is slower than one sample at a time."""
    backbone, batch, rounds = setting(model)
    ours = way(backbone, "auto")
    loop = way(backbone, "loop")
    result: Paired = measured(
        lambda: paired(
            repeated(lambda: ours.squares(batch), rounds),
            repeated(lambda: loop.squares(batch), rounds),
        )
    )
    name = f"{len(batch['label'])} samples: {ours.chosen('squares')}"
    say(f"{model}, {name} / loop = {result.ratio:.3f} ({result.spread()})", ratio=result.ratio)
    assert result.ratio <= 1


@pytest.mark.parametrize("choose", ["auto", "vmap", "loop"])
@pytest.mark.parametrize("model", ["resnet20", "resnet18"])
def test_it_stays_near_the_batched_pass(model: str, choose: str, measured: Any, say: Any) -> None:
    """Fails when the chosen way falls behind what it was measured to reach, by more than a busy
    machine explains.
    """
    backbone, batch, rounds = setting(model)
    ours = way(backbone, choose)
    weights = list(backbone.parameters())
    floor = repeated(lambda: torch.autograd.grad(backbone.loss(batch)[0].sum(), weights), rounds)
    result: Paired = measured(lambda: paired(repeated(lambda: ours.squares(batch), rounds), floor))
    name = f"{len(batch['label'])} samples: {choose} ({ours.chosen('squares')})"
    say(
        f"{model}, {name} / forward and backward = {result.ratio:.3f} ({result.spread()})",
        ratio=result.ratio,
    )
    if choose == "auto":
        assert result.ratio <= 1.75


def test_the_forward_is_shared_by_the_classes(measured: Any, say: Any) -> None:
    """Fails when Fisher forgetting's ten values of a sample cost ten forward passes."""
    backbone, batch, _ = setting("resnet20")
    parameters = list(backbone.named_parameters())
    weights = list(backbone.parameters())
    ours = PerSample(
        backbone, parameters, lambda part: backbone.predict(part).log_softmax(1), "hooks"
    )

    def ten_passes() -> None:
        for label in range(10):
            torch.autograd.grad(backbone.predict(batch).log_softmax(1)[:, label].sum(), weights)

    result: Paired = measured(
        lambda: paired(repeated(lambda: ours.squares(batch), 4), repeated(ten_passes, 4))
    )
    say(
        f"squares of 10 values / 10 forward and backward passes = {result.ratio:.3f} "
        f"({result.spread()})",
        ratio=result.ratio,
    )
    assert result.ratio <= 1.7
