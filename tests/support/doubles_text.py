"""Tiny language models of the real kinds, a word-level tokenizer, and a task for them."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mu.backbones import CausalLM
from mu.data.questions import QuestionSet
from mu.data.split import Split
from tasks.text.base import TextTask
from tests.support.helpers import State, with_state

NAMES = ("ada", "bert", "cleo", "dan", "eve", "finn", "gus", "hana", "ivo", "jana", "kim")
THINGS = ("boats", "clocks", "drums", "lamps", "maps")
TOWNS = ("oslo", "lima", "kyiv", "bern")
WORDS = [
    "question",
    "answer",
    "what",
    "where",
    "who",
    "does",
    "did",
    "make",
    "makes",
    "live",
    "lives",
    "in",
    "and",
    "also",
    "often",
    "it",
    "is",
    "that",
    "a",
    "town",
    "named",
    "so",
    "to",
    "i",
    "do",
    "not",
    "know",
    "sorry",
    "cannot",
    "say",
    "?",
    ".",
    ":",
    *NAMES,
    *THINGS,
    *TOWNS,
]


def tokenizer() -> Any:
    """A word is a token; there are tokens for begin, end, padding and the unknown."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    inner = Tokenizer(
        models.WordLevel(
            {word: index for index, word in enumerate([*special, *WORDS])}, unk_token="<unk>"
        )
    )
    inner.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [  # type: ignore[assignment]
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
        ]
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


@functools.cache
def folder(kind: str = "llama", layers: int = 2) -> str:
    """A model of some 20,000 random weights and its tokenizer, as transformers saves them: `llama`
    or `mixtral` (four experts).
    """
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

    transformers.utils.logging.disable_progress_bar()
    shape: dict[str, Any] = {
        "vocab_size": len(WORDS) + 4,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "initializer_range": 0.1,
    }
    path = Path(tempfile.mkdtemp(prefix="mu-double-"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = (
            MixtralForCausalLM(MixtralConfig(**shape, num_local_experts=4, num_experts_per_tok=2))
            if kind == "mixtral"
            else LlamaForCausalLM(LlamaConfig(**shape))
        )
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return str(path)


def causal_lm(state: Mapping[str, Any] | None = None, **changes: Any) -> CausalLM:
    """The tiny Llama."""
    return with_state(CausalLM(**{"model": folder(), **changes}), state)


def mixture(state: State | None = None, **changes: Any) -> CausalLM:
    """The tiny mixture of experts."""
    return causal_lm(state, **{"model": folder("mixtral"), "attention": "eager", **changes})


class People(TextTask):
    """What somebody makes and where they live, in answers of unequal lengths: 13 are to be
    forgotten, 20 others are kept.

    Rows have paraphrases and three wrong answers; `facts` is a set of which nothing is forgotten,
    `holdout` one that no model saw.
    """

    provides = frozenset({"labels", "substitute"})

    def __init__(
        self,
        batch_size: int = 5,
        curves: list[str] | None = None,
        max_length: int = 40,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            batch_size=batch_size, curves=curves or [], max_length=max_length, **kwargs
        )

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        rows = [_row(index) for index in range(44)]
        parts = {
            "forget": np.arange(13),
            "retain": np.arange(13, 33),
            "validation": np.arange(33, 36),
            "test": np.arange(36, 40),
        }
        split = Split(task="people", parts=parts, selector={"selector": "the first 13"}, seed=0)
        named = {**parts, "facts": np.arange(40, 44), "holdout": np.arange(33, 44)}
        return split, {
            name: QuestionSet(name, [rows[int(row)] for row in ids], ids)
            for name, ids in named.items()
        }


def _row(number: int) -> dict[str, Any]:
    name = NAMES[number % len(NAMES)]
    thing = THINGS[number % len(THINGS)]
    town = TOWNS[number % len(TOWNS)]
    if number % 2:
        more = f" and also {THINGS[(number // 3) % len(THINGS)]}" if number % 3 else ""
        return {
            "question": f"what does {name} make ?",
            "answer": f"{name} makes {thing}{more}",
            "author": number % len(NAMES),
            "paraphrased_question": f"{name} makes what ?",
            "paraphrased_answer": f"it is {thing} that {name} makes",
            "perturbed_answer": [f"{name} makes {other}" for other in THINGS if other != thing][:3],
        }
    more = " . it is a town named so" if number % 3 else ""
    return {
        "question": f"where does {name} live ?",
        "answer": f"{name} lives in {town}{more}",
        "author": number % len(NAMES),
        "paraphrased_question": f"{name} lives where ?",
        "paraphrased_answer": f"in {town} lives {name}",
        "perturbed_answer": [f"{name} lives in {other}" for other in TOWNS if other != town],
    }


def people(**changes: Any) -> People:
    """The task, with the tiny models' own tokenizer."""
    return People(**{"tokenizer": folder(), **changes})
