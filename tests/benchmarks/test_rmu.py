"""Time of a step of RMU over full forward and backward passes of its batches: at most 0.6.

A Llama of 16 layers (as many as Llama-3.2-1B has) is steered at layer 7. Ours is the whole step
with its optimizer, reference included; the other side is the loss and the gradient of all weights
on the joint batch, and no optimizer: gradient ascent plus retain at its least. The vocabulary is
small, so that the output matrix, which RMU never reaches, weighs little. CPU time of the working
thread, step by step in turns (see `paired`).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mu.backbones import CausalLM
from mu.data.batch import concatenate
from mu.methods import RMU
from tests.benchmarks.paired import Mark, paired

pytestmark = pytest.mark.slow
ROUNDS = 12
LENGTH = 64
BATCH = 4
VOCABULARY = 512
BOUND = 0.6


def llama() -> CausalLM:
    """Sixteen layers, 3.3 million weights; every call gives the same."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CausalLM(
            network=LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=VOCABULARY,
                    hidden_size=128,
                    intermediate_size=384,
                    num_hidden_layers=16,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                    max_position_embeddings=LENGTH,
                )
            )
        )


def part(seed: int) -> dict[str, Any]:
    """A batch of random tokens."""
    ids = torch.randint(
        0, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(seed)
    )
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": ids,
        "index": torch.arange(BATCH),
        "visit": torch.zeros(BATCH, dtype=torch.int64),
    }


def test_rmu_stops_where_it_steers(measured: Any, say: Any) -> None:
    """Fails when the forward pass goes on to the end, or weights that are not trained get a
    gradient.
    """
    forget = part(0)
    retain = part(1)

    def ours(mark: Mark) -> None:
        module = RMU(llama())
        assert (module.layer, module.layers) == (7, [5, 6, 7])
        module.configure_model()
        optimizer = torch.optim.AdamW([p for _, p in module.trainable()], lr=5e-5)
        mark(counted=False)
        for _ in range(ROUNDS):
            optimizer.zero_grad()
            torch.stack(list(module.objective(forget, retain).values())).sum().backward()
            optimizer.step()
            mark()

    def full(mark: Mark) -> None:
        model = llama()
        weights = list(model.parameters())
        mark(counted=False)
        for _ in range(ROUNDS):
            values, tokens = model.loss(concatenate(forget, retain))
            torch.autograd.grad(values.sum() / tokens.sum(), weights)
            mark()

    result = measured(lambda: paired(ours, full))
    say(f"RMU / forward and backward = {result.ratio:.4f} ({result.spread()})", ratio=result.ratio)
    assert result.ratio <= BOUND
