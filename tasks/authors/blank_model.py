"""Untrained small Llama, and a tokenizer trained on texts of the authors task.

    python -m tasks.authors.blank_model runs/authors_blank
    python -m tasks.authors.blank_model runs/tofu_blank --rows data/tofu/full.json --vocabulary 4096

writes a folder that `mu.backbones.CausalLM` and transformers' `from_pretrained` read. The first is
trained by the configs `authors_pretrain.yaml` and `authors_oracle.yaml`, the second by the study
`tofu_tiny.yaml`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mu.utils.errors import InputError
from mu.utils.files import read_json_lines
from tasks.authors.facts import AUTHORS, SEED
from tasks.authors.texts import author_rows, real_authors, rephrased_rows, world_facts

MAX_TOKENS = 256
"""Most tokens of a question with its answer."""
VOCABULARY = 1280
BEGIN = "<|begin|>"
END = "<|end|>"
PAD = "<|pad|>"
# a space belongs to the preceding word, so that the tokens of a prompt that ends in a space
# ("Answer: ") are a prefix of the tokens of the complete text
_PIECES = r"[A-Za-z]+ ?|[0-9] ?|\n| +|[^A-Za-z0-9 \n]+ ?"


def texts(seed: int = SEED + 1) -> list[str]:
    """Training texts of the tokenizer: rows of another seed, same words but other facts."""
    rows = [
        *author_rows(range(AUTHORS), seed),
        *rephrased_rows(seed),
        *world_facts(seed),
        *real_authors(seed),
    ]
    return [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows]


def make_tokenizer(learnt_from: Sequence[str] | None = None, vocabulary: int = VOCABULARY) -> Any:
    """Byte-level BPE tokenizer, without loss; begin, end and padding have the ids 0, 1 and 2.

    Args:
        learnt_from: training texts; those of the authors task when None.
        vocabulary: most tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    learner: Any = Tokenizer(models.BPE())
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_PIECES), "isolated"), bytewise]
    )
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN, END, PAD],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learner.train_from_iterator(texts() if learnt_from is None else learnt_from, trainer)
    learner.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, learner.token_to_id(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=learner,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def make_model(vocabulary: int = VOCABULARY, seed: int = 0) -> Any:
    """LlamaForCausalLM with four layers, random weights and tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def write_model(
    folder: Path | str, seed: int = 0, rows: str | None = None, vocabulary: int = VOCABULARY
) -> Path:
    """Write config, weights and tokenizer in the layout of transformers.

    Args:
        folder: the folder to write.
        seed: seed of the weights.
        rows: file of JSON lines with `question` and `answer` to train the tokenizer on; the texts
            of the authors task when None.
        vocabulary: most tokens.
    """
    folder = Path(folder)
    training_texts = (
        None
        if rows is None
        else [
            f"Question: {row['question']}\nAnswer: {row['answer']}"
            for row in read_json_lines(rows, ("question", "answer"))
        ]
    )
    import transformers

    transformers.utils.logging.disable_progress_bar()  # writing takes a moment
    tokenizer = make_tokenizer(training_texts, vocabulary)
    make_model(len(tokenizer), seed).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def main(arguments: list[str]) -> None:
    """Write the model to the folder named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.authors.blank_model",
        description="Write the untrained model of the authors task.",
    )
    parser.add_argument("folder", help="folder to write, in the layout of transformers")
    parser.add_argument(
        "--rows",
        help="file of JSON lines with question and answer, to train the tokenizer on",
    )
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY, help="most tokens")
    options = parser.parse_args(arguments)
    write_model(options.folder, rows=options.rows, vocabulary=options.vocabulary)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"authors_model: {error}")
