"""Preference methods against gradient ascent with a retain term (GradDiff): at most 1.08 times the time of a step, 1.1 times the memory.

Both sides show the same questions and answers, all of one length, forget and retain in one forward pass; so what is measured is what a
method adds to it: its loss, substitutes, the look-up of the original's likelihoods. Their making, once before the first step, is told
beside it. A step of DPO has the winners' rows as well; it is held against GradDiff on as many rows, whose forget batch is twice as large.

Memory is the highest sum of live tensors, as torch's profiler counts them, over a fit from the model's making to its last step.
"""

from __future__ import annotations

import functools
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mu.answers import OtherAnswer
from mu.backbones import CausalLM
from mu.methods.dpo import DPO
from mu.methods.grad_diff import GradDiff
from mu.methods.npo import NPO
from mu.methods.simnpo import SimNPO
from mu.module import UnlearningModule
from mu.questions import QuestionSet
from mu.split import Split
from tasks.texts import TextTask
from tests.benchmarks.conftest import Marks, trainer
from tests.benchmarks.paired import Mark, paired
from tests.doubles_text import WORDS, tokenizer

pytestmark = pytest.mark.slow
EPOCHS, STEPS, BATCH, TIME, MEMORY = 6, 6, 8, 1.08, 1.1
QUESTION, ANSWER = 12, 36
"""Words; every word is a token."""


class Sentences(TextTask):
    """Random words: a question of 12 with an answer of 36 in each row.

    Args:
        folder: of the model.
        forget_rows: rows to forget in a batch, beside `BATCH` to retain.
    """

    def __init__(self, folder: str, forget_rows: int = BATCH) -> None:
        super().__init__(tokenizer=folder, max_length=64, batch_size=BATCH, forget_batch_size=forget_rows, curves=[])
        self.rows = forget_rows

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        sizes = {"forget": self.rows * STEPS, "retain": BATCH * STEPS}
        generator, words = np.random.default_rng(0), [word for word in WORDS if word.isalpha()]

        def row() -> dict[str, str]:
            drawn = generator.choice(words, QUESTION + ANSWER).tolist()
            return {"question": " ".join(drawn[:QUESTION]), "answer": " ".join(drawn[QUESTION:])}

        parts = {"forget": np.arange(sizes["forget"]), "retain": sizes["forget"] + np.arange(sizes["retain"])}
        split = Split(task="sentences", parts=parts, selector={"selector": "the first"}, seed=0)
        return split, {name: QuestionSet(name, [row() for _ in ids], ids) for name, ids in parts.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama of 1.6 million weights with a vocabulary of 4,000."""
    from transformers import LlamaConfig, LlamaForCausalLM

    place: Path = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(vocab_size=4000, hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4,
                         num_key_value_heads=4, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(place)
    tokenizer().save_pretrained(place)
    return str(place)


METHODS: dict[str, tuple[Any, int]] = {
    "NPO": (NPO, BATCH), "SimNPO": (SimNPO, BATCH), "DPO": (functools.partial(DPO, substitute=OtherAnswer()), 2 * BATCH)}
"""Each method, and the rows of forget that GradDiff shows beside it."""


def fitted(make: Any, folder: str, rows: int, epochs: int, *callbacks: Any) -> UnlearningModule:
    module: UnlearningModule = make(CausalLM(folder))
    trainer(epochs, *callbacks).fit(module, datamodule=Sentences(folder, rows))
    return module


@pytest.mark.parametrize("name", METHODS)
def test_a_step_costs_what_gradient_ascent_costs(name: str, folder: str, measured: Any, say: Any) -> None:
    """Fails when the original is asked again in a step, or the parts are shown in several forward passes."""
    make, rows = METHODS[name]

    def ours(mark: Mark) -> UnlearningModule:
        return fitted(make, folder, BATCH, EPOCHS, Marks(mark))

    def ascent(mark: Mark) -> UnlearningModule:
        return fitted(GradDiff, folder, rows, EPOCHS, Marks(mark))

    found = measured(lambda: paired(ours, ascent, units=STEPS))
    seconds = found.results[0].stopwatch.seconds()
    step = sum(found.second) / len(found.second) / STEPS
    say(f"{name} / GradDiff on {BATCH + rows} rows = {found.ratio:.4f} ({found.spread()}; {1e3 * found.difference:+.1f} ms a step of "
        f"{1e3 * step:.0f} ms; {seconds.get('cache', 0.0):.2f} s before the first step)", ratio=found.ratio)
    assert found.ratio <= TIME


@pytest.mark.parametrize("name", METHODS)
def test_it_needs_the_memory_of_gradient_ascent(name: str, folder: str, measured: Any, say: Any) -> None:
    """Fails when a second model is made, or the original's logits are kept."""
    make, rows = METHODS[name]
    ours, ascent = measured(lambda: [peak(make, folder, BATCH), peak(GradDiff, folder, rows)])
    say(f"{name} / GradDiff on {BATCH + rows} rows = {ours / ascent:.4f} of {ascent / 2**20:.0f} MiB at most", ratio=ours / ascent)
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
    changes: list[int] = [event.nbytes() for event in sorted(raw, key=lambda event: event.start_ns())]  # type: ignore[attr-defined]
    return float(np.cumsum(changes).max())
