"""Speed of scoring answers in batches sorted by length, over batches in the order of rows.

Batches sorted by length lie under a budget of tokens; the others are padded to the longest
sequence.

Sequences have TOFU's lengths (questions of some 25 tokens; answers of authors of 45 on average and
up to three times as many; answers of closed questions of a few) on a Llama of two million random
weights. Both sides run the same model and the same arithmetic on the labelled tokens; CPU time of
the working thread, evaluation by evaluation in turns (see `paired`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mu.backbones import CausalLM
from mu.data.encoding import Encoder
from mu.data.questions import QuestionSet
from mu.data.sequences import collate
from mu.data.templates import Plain
from mu.evaluation.text.graph import Graph
from mu.evaluation.text.leaves import Scored
from mu.evaluation.text.scores import token_scores
from tests.benchmarks.paired import Mark, Paired, paired
from tests.support.doubles_text import WORDS, tokenizer

pytestmark = pytest.mark.slow
ROUNDS = 4
BATCH = 32
LEAVES = [
    Scored("forget", answer) for answer in ("answer", "paraphrased_answer", "perturbed_answer")
]
LEAVES += [
    Scored(name, answer)
    for name in ("real_authors", "world_facts")
    for answer in ("answer", "perturbed_answer")
]


def model() -> CausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config: Any = LlamaConfig(
        vocab_size=500,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    return CausalLM(network=LlamaForCausalLM(config).eval(), tokenizer=tokenizer())


def sets() -> dict[str, QuestionSet]:
    """Some of TOFU's sets, of a seventh of their rows, with the lengths of theirs."""
    draw = np.random.default_rng(0)

    def words(mean: float, spread: float, most: int) -> str:
        count = int(np.clip(draw.lognormal(np.log(mean), spread), 2, most))
        return " ".join(draw.choice(WORDS, count))

    def row(author: bool) -> dict[str, Any]:
        mean, spread, most = (41, 0.45, 120) if author else (4, 0.6, 14)
        question: dict[str, Any] = {
            "question": words(22 if author else 14, 0.3, 45),
            "answer": words(mean, spread, most),
        }
        question["perturbed_answer"] = [
            words(mean, spread, most) for _ in range(5 if author else 3)
        ]
        return {**question, "paraphrased_answer": words(mean, spread, most)}

    sizes = {"forget": 60, "real_authors": 15, "world_facts": 18}
    return {
        name: QuestionSet(name, [row(count == 60) for _ in range(count)], np.arange(count))
        for name, count in sizes.items()
    }


def test_like_lengths_are_at_least_twice_as_fast(measured: Any, say: Any) -> None:
    """Fails when batches are not sorted by length, or a batch is padded further than its own
    longest row.
    """
    backbone = model()
    base = Graph(backbone, sets(), Encoder(tokenizer(), Plain(), 256))
    pairs = [base.encoded(leaf).pairs for leaf in LEAVES]
    longest = {
        "evaluation": max(
            (pair for leaf_pairs in pairs for pair in leaf_pairs), key=lambda pair: len(pair[0])
        )
    }

    def fixed(widest: str) -> list[torch.Tensor]:
        scores = []
        for leaf_pairs in pairs:
            for start in range(0, len(leaf_pairs), BATCH):
                rows = leaf_pairs[start : start + BATCH]
                last = (
                    longest[widest]
                    if widest in longest
                    else max(rows, key=lambda pair: len(pair[0]))
                )
                # as wide as the last row, which is left out
                part = {name: value[:-1] for name, value in collate([*rows, last]).items()}
                scores.append(token_scores(backbone, part)["log_prob"])
        return scores

    def sorted_by_length() -> list[torch.Tensor]:
        graph = base.for_model(backbone)
        return [graph.value(leaf).log_prob for leaf in LEAVES]

    def repeated(action: Any, rounds: int = ROUNDS) -> Any:
        def work(mark: Mark) -> Any:
            mark(counted=False)
            for _ in range(rounds):
                result = action()
                mark()
            return result

        return work

    pair: Paired = measured(
        lambda: paired(repeated(lambda: fixed("evaluation")), repeated(sorted_by_length))
    )
    fixed_order, by_length = (torch.cat(result) for result in pair.results)
    assert torch.allclose(fixed_order, by_length, atol=2e-5)
    tokens = sum(len(ids) for leaf_pairs in pairs for ids, _ in leaf_pairs)
    say(
        f"{len(by_length)} labelled of {tokens} tokens; fixed order padded to the longest / by "
        f"length = {pair.ratio:.2f} ({pair.spread()})",
        ratio=pair.ratio,
    )
    milder = paired(repeated(lambda: fixed("batch"), 2), repeated(sorted_by_length, 2))
    say(
        f"fixed order padded to the longest of each batch / by length = {milder.ratio:.2f} "
        f"({milder.spread()})",
        milder=milder.ratio,
    )
    assert pair.ratio >= 2
