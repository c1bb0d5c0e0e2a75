"""Questions and answers as tokens: templates, the span of the answer, and batches of unequal
lengths.
"""

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
    """How a question becomes a prompt, and where the answer follows."""

    @abstractmethod
    def prompt(self, tokenizer: Any, question: str) -> str:
        """Everything before the answer, as text."""

    @abstractmethod
    def whole(self, tokenizer: Any, question: str, answer: str) -> str:
        """The prompt and the answer, as text."""

    special = True
    """Whether the tokenizer adds its own special tokens; a chat template writes them itself."""


class Plain(Template):
    """Tags before and after question and answer: the form of base models (MUSE, phi-1.5 in TOFU).

    Args:
        user: before the question.
        user_end: after it.
        assistant: before the answer.
        assistant_end: after it.
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

    def whole(self, tokenizer: Any, question: str, answer: str) -> str:
        return f"{self.prompt(tokenizer, question)}{answer}{self.assistant_end}"


class Llama2(Plain):
    """Llama-2-chat as TOFU writes it. The answer's tag is empty: a space there would be tokenised
    together with the answer.
    """

    def __init__(self) -> None:
        super().__init__(user="[INST] ", user_end=" [/INST]", assistant="")


class Chat(Template):
    """The tokenizer's own chat template, with a fixed date: some templates write today's, and
    numbers would change by the day.

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

    def _text(self, tokenizer: Any, messages: list[dict[str, str]], begun: bool) -> str:
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "the tokenizer has no chat template; take template: mu.data.Plain, or a tokenizer "
                "of a chat model."
            )
        system = [{"role": "system", "content": self.system}] if self.system else []
        return tokenizer.apply_chat_template(
            [*system, *messages], tokenize=False, add_generation_prompt=begun, date_string=self.date
        )

    def prompt(self, tokenizer: Any, question: str) -> str:
        return self._text(tokenizer, [{"role": "user", "content": question}], True)

    def whole(self, tokenizer: Any, question: str, answer: str) -> str:
        return self._text(
            tokenizer,
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            False,
        )


class Encoder:
    """A tokenizer with a template: makes sequences, labels and batches.

    Labels are −100 up to the end of the prompt, and the token ids from there on, the
    end-of-sequence token included (so it is learnt and unlearned as any other). The answer begins
    where the tokens of the prompt end; where prompt and answer are merged into one token at the
    border, that token belongs to the answer.

    Args:
        tokenizer: of transformers.
        template: how question and answer stand together.
        max_length: tokens of a sequence.
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
        """Token ids of a text, as the template wants its special tokens."""
        added = self.template.special if special is None else special
        return list(self.tokenizer(text, add_special_tokens=added, verbose=False)["input_ids"])

    def prompt(self, question: str, begin: str = "") -> list[int]:
        """Token ids of the prompt, ready for the answer; `begin` are the answer's first words (a
        jailbreak that says yes).
        """
        ids = self.tokens(self.template.prompt(self.tokenizer, question) + begin)
        while len(ids) > 1 and ids[-1] == self.eos:  # some tokenizers end every text
            ids.pop()
        if len(ids) > self.max_length:  # cut, it would end in the middle of the question
            raise InputError(
                f"the prompt {question[:60]!r} has {len(ids)} tokens, and max_length is "
                f"{self.max_length}; give a larger max_length (as far as the model's context "
                "goes)."
            )
        return ids

    def pair(self, question: str, answer: str, row: str = "") -> Pair:
        """Token ids and labels of a question with its answer.

        Args:
            question: as it is asked.
            answer: what is to be said.
            row: names the sample in messages.

        Raises:
            InputError: names the row, when the answer has no token, or the sequence is too long.
        """
        ids = self.tokens(self.template.whole(self.tokenizer, question, answer))
        before = self.tokens(self.template.prompt(self.tokenizer, question))
        while len(before) > 1 and before[-1] == self.eos:
            before.pop()
        start = next(
            (place for place, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b),
            min(len(ids), len(before)),
        )
        if not answer.strip() or start >= len(ids) or ids[start:] == [self.eos]:
            raise InputError(
                f"the answer {answer!r}{row and f' of {row}'} has no token of its own after the "
                "prompt; check the template and the row."
            )
        if ids[-1] != self.eos:
            ids.append(self.eos)
        ids = self._fitting(ids, f"{question} {answer}"[:60], row)
        if start >= len(ids):
            raise InputError(
                f"the question{row and f' of {row}'} fills all {self.max_length} places, so "
                "nothing of the answer is left; give a larger max_length."
            )
        return ids, [IGNORED] * start + ids[start:]

    def text(self, ids: Sequence[int]) -> Pair:
        """Labels of raw text: every token but the first is learnt."""
        return list(ids), [IGNORED, *ids[1:]]

    def _fitting(self, ids: list[int], what: str, row: str = "") -> list[int]:
        if len(ids) <= self.max_length:
            return ids
        if self.too_long == "refuse":
            raise InputError(
                f"{row or repr(what)} has {len(ids)} tokens, and max_length is {self.max_length}; "
                "give a larger one (as far as the context goes), or too_long: cut."
            )
        self.cuts += 1
        return ids[: self.max_length]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids, without special tokens."""
        return self.tokenizer.decode([int(one) for one in ids], skip_special_tokens=True)


def collate(pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """A batch of sequences, padded on the right: `input_ids`, `attention_mask`, `labels` `[B, L]`
    and `key` `[B]`, all int64.

    Padding has id 0, mask 0 and label −100: the mask says what is there, not the id, because many
    tokenizers pad with a token that also ends sequences.
    """
    width = max(len(ids) for ids, _ in pairs)
    ids = np.zeros((len(pairs), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    labels = np.full_like(ids, IGNORED)
    for row, (tokens, targets) in enumerate(pairs):
        ids[row, : len(tokens)], mask[row, : len(tokens)], labels[row, : len(targets)] = (
            tokens,
            1,
            targets,
        )
    found = {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": labels,
        "key": np.asarray([key_of(pair) for pair in pairs]),
    }
    return {name: torch.from_numpy(value) for name, value in found.items()}


def key_of(pair: Pair) -> int:
    """A 63-bit number that stands for exactly these tokens and labels."""
    raw = np.asarray(pair, dtype=np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little") >> 1


def labelled(pair: Pair) -> int:
    """Labelled tokens of a sequence; the first token is never one, because nothing predicts it."""
    return sum(label != IGNORED for label in pair[1][1:])
