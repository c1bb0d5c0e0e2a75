"""Time of a language model's step over a bare PyTorch loop: at most 1.05.

Both sides show the same questions and answers, forget and retain in one forward pass, take the loss
at the labelled places alone, and step the same optimizer; that they do is asserted on the weights
at the end. The bare loop finds its order and its sequences of tokens ready; ours makes its plan in
the measured time. Ours is a whole fit by a Trainer as `mu fit` makes it (without files, bar and
curves). See `paired` for how CPU time is taken and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mu.backbones import CausalLM
from mu.core.module import UnlearningModule
from mu.data.plan import plan_steps
from mu.data.sequences import collate
from mu.methods.general.grad_diff import GradDiff
from mu.methods.language.simnpo import SimNPO
from tests.benchmarks.conftest import Marks, trainer
from tests.benchmarks.paired import Mark, paired
from tests.benchmarks.sentences import BATCH, STEPS, Sentences, small_llama

pytestmark = pytest.mark.slow
EPOCHS = 8
BOUND = 1.05


def difference(values: Tensor, owner: Tensor, counts: Tensor) -> Tensor:
    """GradDiff: the forget sequences are the first."""
    return values[owner >= BATCH].mean() - values[owner < BATCH].mean()


def simple_preference(values: Tensor, owner: Tensor, counts: Tensor) -> Tensor:
    """SimNPO with its defaults."""
    mean = torch.zeros(len(counts)).index_add(0, owner, values)[:BATCH] / counts[:BATCH]
    return -0.125 * 2 / 4.5 * F.logsigmoid(4.5 * mean).mean() + values[owner >= BATCH].mean()


METHODS: dict[str, tuple[Any, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "GradDiff": (GradDiff, difference),
    "SimNPO": (SimNPO, simple_preference),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_step_costs_what_a_bare_loop_costs(
    name: str, tmp_path: Any, measured: Any, say: Any
) -> None:
    """Fails when batching, hooks or logging take more than a twentieth of the arithmetic, or the
    loss is taken at every place.
    """
    method, loss_of = METHODS[name]
    folder = small_llama(tmp_path)
    data = Sentences(folder)
    data.setup()
    module: UnlearningModule = method(CausalLM(folder))
    batch = {"forget": BATCH, "retain": BATCH}
    rows: dict[str, Any] = data.datasets  # type: ignore[assignment]
    orders = [
        [
            [
                rows[part].pair(int(position))
                for part in ("forget", "retain")
                for position in step.parts[part].positions
            ]
            for step in plan_steps(
                module.plan, epoch, {part: BATCH * STEPS for part in batch}, batch, 0
            )
        ]
        for epoch in range(EPOCHS)
    ]

    def ours(mark: Mark) -> Any:
        trainer(EPOCHS, Marks(mark)).fit(module, datamodule=data)
        return module.backbone.network

    def bare(mark: Mark) -> Any:
        network: Any = CausalLM(folder).network
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, weight_decay=0.01)
        network.train()
        for order in orders:
            for pairs in order:
                mark()
                inputs = collate(pairs)
                logits = network(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    use_cache=False,
                ).logits
                labels = inputs["labels"][:, 1:]
                real = labels != -100
                values = F.cross_entropy(logits[:, :-1][real], labels[real], reduction="none")
                optimizer.zero_grad()
                loss_of(values, real.nonzero()[:, 0], real.sum(1)).backward()
                optimizer.step()
        mark()
        return network

    pair = measured(lambda: paired(ours, bare, units=STEPS))
    say(
        f"{name} / bare loop = {pair.ratio:.4f} ({pair.spread()}; {1e3 * pair.difference:+.2f} "
        f"ms a step of {1e3 * sum(pair.second) / len(pair.second) / STEPS:.0f} ms)",
        ratio=pair.ratio,
    )
    distances = [
        (a.double() - b.double()).abs().max()
        for a, b in zip(*(n.state_dict().values() for n in pair.results), strict=True)
    ]
    assert max(distances) < 1e-4, "the two sides did not compute the same"
    assert pair.ratio <= BOUND
