"""Random sentences as a task of a language model, shared by the benchmarks of text methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mu.data.questions import QuestionSet
from mu.data.split import Split
from tasks.text.base import TextTask
from tests.support.doubles_text import WORDS, tokenizer

BATCH = 8
STEPS = 6
QUESTION = 12
ANSWER = 36
"""Words; every word is a token."""


class Sentences(TextTask):
    """Random words: a question of 12 with an answer of 36 in each row.

    Args:
        folder: of the model.
        forget_rows: rows to forget in a batch, beside `BATCH` to retain.
    """

    def __init__(self, folder: str, forget_rows: int = BATCH) -> None:
        super().__init__(
            tokenizer=folder,
            max_length=64,
            batch_size=BATCH,
            forget_batch_size=forget_rows,
            curves=[],
        )
        self.rows = forget_rows

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        sizes = {"forget": self.rows * STEPS, "retain": BATCH * STEPS}
        generator = np.random.default_rng(0)
        words = [word for word in WORDS if word.isalpha()]

        def row() -> dict[str, str]:
            drawn = generator.choice(words, QUESTION + ANSWER).tolist()
            return {"question": " ".join(drawn[:QUESTION]), "answer": " ".join(drawn[QUESTION:])}

        parts = {
            "forget": np.arange(sizes["forget"]),
            "retain": sizes["forget"] + np.arange(sizes["retain"]),
        }
        split = Split(task="sentences", parts=parts, selector={"selector": "the first"}, seed=0)
        return split, {
            name: QuestionSet(name, [row() for _ in ids], ids) for name, ids in parts.items()
        }


def small_llama(directory: Path) -> str:
    """The folder of a Llama of 1.6 million weights with a vocabulary of 4,000."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=4000,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return str(directory)
