"""Tokenisation of questions and answers: prompt templates, labels of the answer, padded batches."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mu.functional.tokens import IGNORED
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible

Pair = tuple[list[int], list[int]]
"""Token ids and labels of one sequence, of equal length."""


class Template(Reconstructible, ABC):
    """Prompt template of a question and its answer."""

    @abstractmethod
    def prompt(self, tokenizer: Any, question: str) -> str:
        """Text up to the answer."""

    @abstractmethod
    def full_text(self, tokenizer: Any, question: str, answer: str) -> str:
        """Text of the prompt and the answer."""

    special = True
    """Whether the tokenizer adds special tokens; a chat template writes them itself."""


class Plain(Template):
    """Template of tags around question and answer, for base models (MUSE, phi-1.5 in TOFU).

    Args:
        user: before the question.
        user_end: after the question.
        assistant: before the answer.
        assistant_end: after the answer.
    """

    def __init__(
        self,
        user: str = "Question: ",
        user_end: str = "\n",
        assistant: str = "Answer: ",
        assistant_end: str = "",
    ) -> None:
        self.user = user
        self.user_end = user_end
        self.assistant = assistant
        self.assistant_end = assistant_end

    def prompt(self, tokenizer: Any, question: str) -> str:
        return f"{self.user}{question}{self.user_end}{self.assistant}"

    def full_text(self, tokenizer: Any, question: str, answer: str) -> str:
        return f"{self.prompt(tokenizer, question)}{answer}{self.assistant_end}"


class Llama2(Plain):
    """Llama-2-chat's template as TOFU writes it.

    The answer's tag is empty, because a space in it would be tokenised together with the answer.
    """

    def __init__(self) -> None:
        super().__init__(user="[INST] ", user_end=" [/INST]", assistant="")


class Chat(Template):
    """Chat template of the tokenizer, with a fixed date.

    Some chat templates write today's date, and results would change by the day.

    Args:
        system: system message; None for none.
        date: as the template is to write it.
    """

    special = False

    def __init__(
        self, system: str | None = "You are a helpful assistant.", date: str = "10 Apr 2025"
    ) -> None:
        self.system = system
        self.date = date

    def _text(self, tokenizer: Any, messages: list[dict[str, str]], prompt: bool) -> str:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "the tokenizer has no chat template; take template: mu.data.Plain, or a tokenizer "
                "of a chat model."
            )
        system = [{"role": "system", "content": self.system}] if self.system else []
        return tokenizer.apply_chat_template(
            [*system, *messages],
            tokenize=False,
            add_generation_prompt=prompt,
            date_string=self.date,
        )

    def prompt(self, tokenizer: Any, question: str) -> str:
        return self._text(tokenizer, [{"role": "user", "content": question}], True)

    def full_text(self, tokenizer: Any, question: str, answer: str) -> str:
        return self._text(
            tokenizer,
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            False,
        )


class Encoder:
    """Tokenizer with a prompt template, which makes token sequences and their labels.

    Labels are −100 up to the end of the prompt, and the token ids from there on, the
    end-of-sequence token included (so it is learnt and unlearned as any other). The answer begins
    where the tokens of the prompt end; where prompt and answer are merged into one token at the
    border, that token belongs to the answer.

    Args:
        tokenizer: of transformers.
        template: prompt template of question and answer.
        max_length: most tokens of a sequence.
        too_long: `refuse` a longer sequence, or `cut` its end off; `cuts` counts those.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        max_length: int = 512,
        too_long: Literal["refuse", "cut"] = "refuse",
    ) -> None:
        if max_length < 2:
            raise InputError(f"max_length is {max_length}; a sequence has at least 2 tokens.")
        if tokenizer.eos_token_id is None:
            raise InputError(
                "the tokenizer has no end-of-sequence token (and none to pad with); set its "
                "eos_token."
            )
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length
        self.too_long = too_long
        self.eos = int(tokenizer.eos_token_id)
        self.cuts = 0

    def tokens(self, text: str, special: bool | None = None) -> list[int]:
        """Token ids of a text.

        Args:
            text: any.
            special: whether the tokenizer adds special tokens; the template's choice when None.
        """
        add_special = self.template.special if special is None else special
        encoded = self.tokenizer(text, add_special_tokens=add_special, verbose=False)
        return list(encoded["input_ids"])

    def prompt(self, question: str, begin: str = "") -> list[int]:
        """Token ids of the prompt, without an end-of-sequence token.

        Args:
            question: the question.
            begin: first words of the answer (a jailbreak by "Sure, here is").

        Raises:
            InputError: the prompt is longer than `max_length`.
        """
        ids = self._without_eos(self.template.prompt(self.tokenizer, question) + begin)
        # cut, it would end in the middle of the question
        if len(ids) > self.max_length:
            raise InputError(
                f"the prompt {question[:60]!r} has {len(ids)} tokens, and max_length is "
                f"{self.max_length}; give a larger max_length (as far as the model's context "
                "goes)."
            )
        return ids

    def pair(self, question: str, answer: str, row: str = "") -> Pair:
        """Token ids and labels of a question with its answer.

        Args:
            question: the question.
            answer: the answer.
            row: names the sample in messages.

        Raises:
            InputError: names the row whose answer has no token, or whose sequence is too long.
        """
        # the answer starts where the tokens differ from those of the prompt
        ids = self.tokens(self.template.full_text(self.tokenizer, question, answer))
        prompt = self._without_eos(self.template.prompt(self.tokenizer, question))
        common = zip(ids, prompt, strict=False)
        start = next(
            (position for position, (a, b) in enumerate(common) if a != b),
            min(len(ids), len(prompt)),
        )
        if not answer.strip() or start >= len(ids) or ids[start:] == [self.eos]:
            raise InputError(
                f"the answer {answer!r}{row and f' of {row}'} has no token of its own after the "
                "prompt; check the template and the row."
            )
        # the end of the sequence is learnt too
        if ids[-1] != self.eos:
            ids.append(self.eos)
        ids = self._within_length(ids, f"{question} {answer}"[:60], row)
        if start >= len(ids):
            raise InputError(
                f"the question{row and f' of {row}'} fills all {self.max_length} tokens, so "
                "nothing of the answer remains; give a larger max_length."
            )
        return ids, [IGNORED] * start + ids[start:]

    def text(self, ids: Sequence[int]) -> Pair:
        """Token ids and labels of raw text, in which every token but the first is learnt."""
        return list(ids), [IGNORED, *ids[1:]]

    def _without_eos(self, text: str) -> list[int]:
        """Token ids of a text; some tokenizers end every text by the end of the sequence."""
        ids = self.tokens(text)
        while len(ids) > 1 and ids[-1] == self.eos:
            ids.pop()
        return ids

    def _within_length(self, ids: list[int], text: str, row: str = "") -> list[int]:
        if len(ids) <= self.max_length:
            return ids
        if self.too_long == "refuse":
            raise InputError(
                f"{row or repr(text)} has {len(ids)} tokens, and max_length is {self.max_length}; "
                "give a larger one (as far as the context goes), or too_long: cut."
            )
        self.cuts += 1
        return ids[: self.max_length]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids, without special tokens."""
        return self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=True)


def collate(pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """A batch of sequences, padded on the right.

    Padding has id 0, mask 0 and label −100. The mask tells tokens from padding, not the id, because
    many tokenizers pad with a token that also ends sequences.

    Args:
        pairs: B pairs of token ids and labels.

    Returns:
        `input_ids`, `attention_mask`, `labels` `[B, L]` and `key` `[B]`, all int64.

    Example:
        >>> batch = collate([([5, 6], [-100, 6]), ([7], [-100])])
        >>> batch["input_ids"].tolist(), batch["labels"].tolist()
        ([[5, 6], [7, 0]], [[-100, 6], [-100, -100]])
    """
    width = max(len(ids) for ids, _ in pairs)
    ids = np.zeros((len(pairs), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    labels = np.full_like(ids, IGNORED)
    for row, (tokens, targets) in enumerate(pairs):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
        labels[row, : len(targets)] = targets
    columns = {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "key": np.asarray([sequence_key(pair) for pair in pairs]),
    }
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def sequence_key(pair: Pair) -> int:
    """A 63-bit hash of a sequence's tokens and labels."""
    raw = np.asarray(pair, dtype=np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little") >> 1


def count_labelled(pair: Pair) -> int:
    """Number of labelled tokens of a sequence; the first is never one, as nothing predicts it.

    Example:
        >>> count_labelled(([5, 6, 7], [-100, -100, 7]))
        1
    """
    return sum(label != IGNORED for label in pair[1][1:])
