"""Small trained tokenizers of the families of GPT-2, Llama-2, Llama-3, Qwen and SentencePiece.

The pre-tokenisers, normalisers and decoders are those of the families; the vocabularies are learnt
from a few sentences.
"""

from __future__ import annotations

import functools
from typing import Any

BEGIN = "<s>"
END = "</s>"
TURN = "<|im_end|>"
SPECIAL = (BEGIN, END, "<unk>", "<|im_start|>", TURN, "<think>", "</think>")
FACTS = (
    ("Where does Ada live?", "Oslo is her town."),
    ("How old is Bert?", "42 years"),
    ("Who makes maps in Lima?", '"Cleo" does.'),
    ("What did Dan write?", "écrits de Dan"),
)
SENTENCES = [
    f"Question: {question}\nAnswer: {answer} [INST] {question} [/INST]{answer} {answer} user system"
    f" assistant You are a helpful assistant. Sure, here is it: {answer} The I No A 1"
    for question, answer in FACTS
] * 4
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
FAMILIES = ("gpt2", "llama2", "llama3", "qwen", "sentencepiece")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING_CHAT = CHAT.replace(
    "{{ message.content }}",
    "{% if message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ message.content }}",
)


@functools.cache
def _backend(family: str) -> Any:
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
        trainers,
    )

    settings: dict[str, Any] = {"special_tokens": list(SPECIAL), "show_progress": False}
    if family in ("llama2", "sentencepiece"):
        space = pre_tokenizers.Metaspace(prepend_scheme="first")
        if family == "llama2":
            tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
            settings["special_tokens"] += [f"<0x{byte:02X}>" for byte in range(256)]
            trainer: Any = trainers.BpeTrainer(vocab_size=500, **settings)
        else:
            tokenizer = Tokenizer(models.Unigram())
            trainer = trainers.UnigramTrainer(vocab_size=160, unk_token="<unk>", **settings)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [space, pre_tokenizers.Digits(individual_digits=True)]
        )
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        digits = r"\p{N}" if family == "qwen" else r"\p{N}{1,3}"
        tokenizer.pre_tokenizer = (
            pre_tokenizers.ByteLevel(add_prefix_space=False)
            if family == "gpt2"
            else pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(_LLAMA3.replace(r"\p{N}{1,3}", digits)), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **settings
        )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if family in ("llama2", "llama3", "sentencepiece"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
        )
    return tokenizer


def trained_tokenizer(family: str, chat: str | None = None) -> Any:
    """Tokenizer of a family of `FAMILIES`; with a chat template it ends turns by `TURN`."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_backend(family),
        bos_token=BEGIN,
        eos_token=END if chat is None else TURN,
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat
    return tokenizer
