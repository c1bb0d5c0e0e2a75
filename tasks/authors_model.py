"""The untrained language model of the authors task: a small Llama with new weights, and a tokenizer made from texts of the same kind.

    python -m tasks.authors_model runs/authors_blank

writes a folder that `mu.backbones.CausalLM` and transformers' `from_pretrained` read. It is trained by the configs `authors_pretrain.yaml`
and `authors_oracle.yaml`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from mu.errors import InputError
from tasks.authors_text import AUTHORS, SEED, author_rows, phrasings, real_authors, world_facts

PLACES = 256
"""Tokens of a question with its answer, at most."""
VOCABULARY = 1280
BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
# a space belongs to the word before it, so that a prompt that ends in a space ("Answer: ") is a prefix of the whole text's tokens too
_PIECES = r"[A-Za-z]+ ?|[0-9] ?|\n| +|[^A-Za-z0-9 \n]+ ?"


def texts(seed: int = SEED + 1) -> list[str]:
    """What the tokenizer is learned from: rows of another seed, so that it knows the words but nobody's facts."""
    rows = [*author_rows(range(AUTHORS), seed), *phrasings(seed), *world_facts(seed), *real_authors(seed)]
    return [f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows]


def make_tokenizer() -> Any:
    """A byte-level tokenizer: begin, end and padding have the ids 0, 1 and 2; any text comes back from its tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    learner: Any = Tokenizer(models.BPE())
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_PIECES), "isolated"), bytewise])
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[BEGIN, END, PAD], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(texts(), trainer)
    learner.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, learner.token_to_id(BEGIN))])
    return PreTrainedTokenizerFast(tokenizer_object=learner, bos_token=BEGIN, eos_token=END, pad_token=PAD, model_max_length=PLACES,
                                   clean_up_tokenization_spaces=False)


def make_model(vocabulary: int = VOCABULARY, seed: int = 0) -> Any:
    """A LlamaForCausalLM of four layers with weights drawn from `seed`; input and output embeddings are one."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
        max_position_embeddings=PLACES, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def write_model(folder: Path | str, seed: int = 0) -> Path:
    """Write config, weights and tokenizer in the layout of transformers."""
    folder = Path(folder)
    tokenizer = make_tokenizer()
    make_model(len(tokenizer), seed).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def main(arguments: list[str]) -> None:
    """Write the model to the folder named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks.authors_model", description="Write the untrained model of the authors task.")
    parser.add_argument("folder", help="folder to write, in the layout of transformers")
    write_model(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"authors_model: {error}")
