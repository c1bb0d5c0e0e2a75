"""Cost of preference methods over GradDiff: at most 1.08 times the time, 1.1 the memory.

Both sides show the same questions and answers, all of one length, forget and retain in one forward
pass; so what is measured is what a method adds to it: its loss, substitutes, the look-up of the
original's likelihoods. Their making, once before the first step, is told beside it. A step of DPO
has the winners' rows as well; it is held against GradDiff on as many rows, whose forget batch is
twice as large.

Memory is the highest sum of live tensors, as torch's profiler counts them, over a fit from the
model's making to its last step.
"""

from __future__ import annotations

import functools
import gc
from typing import Any

import numpy as np
import pytest

from mu.backbones import CausalLM
from mu.core.module import UnlearningModule
from mu.methods.components.answers import AnswerOfAnotherQuestion
from mu.methods.general.grad_diff import GradDiff
from mu.methods.language.dpo import DPO
from mu.methods.language.npo import NPO
from mu.methods.language.simnpo import SimNPO
from tests.benchmarks.conftest import Marks, trainer
from tests.benchmarks.paired import Mark, paired
from tests.benchmarks.sentences import BATCH, STEPS, Sentences, small_llama

pytestmark = pytest.mark.slow
EPOCHS = 6
TIME = 1.08
MEMORY = 1.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_llama(tmp_path_factory.mktemp("llama"))


METHODS: dict[str, tuple[Any, int]] = {
    "NPO": (NPO, BATCH),
    "SimNPO": (SimNPO, BATCH),
    "DPO": (functools.partial(DPO, substitute=AnswerOfAnotherQuestion()), 2 * BATCH),
}
"""Each method, and the rows of forget that GradDiff shows beside it."""


def fitted(make: Any, folder: str, rows: int, epochs: int, *callbacks: Any) -> UnlearningModule:
    module: UnlearningModule = make(CausalLM(folder))
    trainer(epochs, *callbacks).fit(module, datamodule=Sentences(folder, rows))
    return module


@pytest.mark.parametrize("name", METHODS)
def test_a_step_costs_what_gradient_ascent_costs(
    name: str, folder: str, measured: Any, say: Any
) -> None:
    """Fails when the original is asked again in a step, or the parts are shown in several forward
    passes.
    """
    make, rows = METHODS[name]

    def ours(mark: Mark) -> UnlearningModule:
        return fitted(make, folder, BATCH, EPOCHS, Marks(mark))

    def ascent(mark: Mark) -> UnlearningModule:
        return fitted(GradDiff, folder, rows, EPOCHS, Marks(mark))

    pair = measured(lambda: paired(ours, ascent, units=STEPS))
    seconds = pair.results[0].stopwatch.seconds()
    step = sum(pair.second) / len(pair.second) / STEPS
    say(
        f"{name} / GradDiff on {BATCH + rows} rows = {pair.ratio:.4f} ({pair.spread()}; "
        f"{1e3 * pair.difference:+.1f} ms a step of {1e3 * step:.0f} ms; "
        f"{seconds.get('cache', 0.0):.2f} s before the first step)",
        ratio=pair.ratio,
    )
    assert pair.ratio <= TIME


@pytest.mark.parametrize("name", METHODS)
def test_it_needs_the_memory_of_gradient_ascent(
    name: str, folder: str, measured: Any, say: Any
) -> None:
    """Fails when a second model is made, or the original's logits are kept."""
    make, rows = METHODS[name]
    ours, ascent = measured(lambda: [peak(make, folder, BATCH), peak(GradDiff, folder, rows)])
    say(
        f"{name} / GradDiff on {BATCH + rows} rows = {ours / ascent:.4f} of {ascent / 2**20:.0f} "
        "MiB at most",
        ratio=ours / ascent,
    )
    assert ours / ascent <= MEMORY


def peak(make: Any, folder: str, rows: int) -> float:
    """Bytes of live tensors at most."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # what an earlier fit left would be subtracted when it goes
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        fitted(make, folder, rows, 1)
    assert record.profiler is not None and record.profiler.kineto_results is not None
    # the raw records: events() books most of them on operators, without their order
    raw = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes: list[int] = [
        event.nbytes() for event in sorted(raw, key=lambda event: event.start_ns())
    ]  # type: ignore[attr-defined]
    return float(np.cumsum(changes).max())
