"""Tokenisation of questions and answers: token ids, and labels of the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import mode
from typing import Any, Literal

from mu.data.sequences import Pair
from mu.data.templates import Template
from mu.functional.tokens import IGNORED
from mu.utils.errors import InputError

_COMMON_WORDS = ("A", "I", "No", "The", "1")
"""Beginnings of answers, to find where a prompt ends whose answer is unknown."""


class Encoder:
    """Tokenizer with a prompt template, which makes token sequences and their labels.

    The answer begins behind the longest common prefix of the token ids of the text before it and of
    the whole text. One rule for training, scoring and generation: a token that is merged across the
    border (a space with the word after it) belongs to the answer, and no prompt ends in a part of
    it. A token that is merged with what follows the answer belongs to the answer too.

    Labels of `pair` are −100 up to the answer, and the token ids from there on, what the template
    writes after the answer and the end-of-sequence token included, so they are learnt and unlearned
    as any other. Labels of `scored_pair` are the answer's own tokens, and the end-of-sequence token
    where it follows them directly.

    Args:
        tokenizer: of transformers.
        template: prompt template of question and answer.
        max_length: most tokens of a sequence.
        too_long: `refuse` a longer sequence, or `cut` its end off.
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
        self._cut: set[str] = set()

    @property
    def cuts(self) -> int:
        """Number of distinct questions with answers whose ends were cut off."""
        return len(self._cut)

    @contextmanager
    def counted_cuts(self) -> Iterator[set[str]]:
        """Context that collects the texts that are cut in it, apart from all others."""
        before = self._cut
        self._cut = set()
        try:
            yield self._cut
        finally:
            self._cut = before

    def tokens(self, text: str, special: bool | None = None) -> list[int]:
        """Token ids of a text.

        Args:
            text: any.
            special: whether the tokenizer adds special tokens; the template's choice when None.
        """
        add_special = self.template.special if special is None else special
        encoded = self.tokenizer(text, add_special_tokens=add_special, verbose=False)
        return list(encoded["input_ids"])

    def prompt(self, question: str, begin: str = "", answer: str | None = None) -> list[int]:
        """Token ids of the prompt, without an end-of-sequence token.

        Args:
            question: the question.
            begin: first words of the answer (a jailbreak by "Sure, here is").
            answer: the true answer, whose first token decides where the prompt ends, and nothing
                more; None ends it where it ends before most common words.

        Raises:
            InputError: the prompt is longer than `max_length`.
        """
        if answer is None or not answer.strip():
            before = self._before(question, begin)
            ids = self._without_eos(before)
            ids = ids[
                : mode(_common_length(ids, self.tokens(before + word)) for word in _COMMON_WORDS)
            ]
        else:
            ids, start, _ = self._spans(question, answer, begin)
            ids = ids[:start]
        # cut, it would end in the middle of the question
        if len(ids) > self.max_length:
            raise InputError(
                f"the prompt {question[:60]!r} has {len(ids)} tokens, and max_length is "
                f"{self.max_length}; give a larger max_length (as far as the model's context "
                "goes)."
            )
        return ids

    def merged_text(self, question: str, prompt: Sequence[int], begin: str = "") -> str:
        """Text before the answer that is not in a prompt of `prompt()`, often a space.

        The first token of an answer is merged with it, so generated answers begin with it.
        """
        ids = self._without_eos(self._before(question, begin))
        return self.decode(ids[len(prompt) :])

    def pair(self, question: str, answer: str, row: str = "") -> Pair:
        """Token ids and labels of a question with its answer, as they are learnt.

        Args:
            question: the question.
            answer: the answer.
            row: names the sample in messages.

        Raises:
            InputError: names the row whose answer has no token, or whose sequence is too long.
        """
        ids, start, _ = self._spans(question, answer, "", row)
        # the end of the sequence is learnt too
        if ids[-1] != self.eos:
            ids.append(self.eos)
        return self._labelled(ids, start, f"{question} {answer}", row)

    def scored_pair(self, question: str, answer: str, row: str = "", begin: str = "") -> Pair:
        """Token ids and labels of a question with its answer, as they are scored.

        The sequence ends with the answer, or with the end-of-sequence token directly behind it.

        Args:
            question: the question.
            answer: the answer.
            row: names the sample in messages.
            begin: words before the answer that are not scored.

        Raises:
            InputError: names the row whose answer has no token, or whose sequence is too long.
        """
        ids, start, end = self._spans(question, answer, begin, row)
        follows = ids[end:]
        scored = ids[:end] + ([self.eos] if not follows or follows[0] == self.eos else [])
        return self._labelled(scored, start, f"{question} {answer}", row)

    def text(self, ids: Sequence[int]) -> Pair:
        """Token ids and labels of raw text, in which every token but the first is learnt."""
        return list(ids), [IGNORED, *ids[1:]]

    # ---- borders of the answer -------------------------------------------------------------------

    def _before(self, question: str, begin: str) -> str:
        """Text before an answer whose first words are `begin`."""
        return self.template.prompt(self.tokenizer, question) + begin + _gap(begin)

    def _spans(
        self, question: str, answer: str, begin: str = "", row: str = ""
    ) -> tuple[list[int], int, int]:
        """Token ids of the whole text, and the positions where the answer begins and ends."""
        before, after = self.template.around(self.tokenizer, question)
        before += begin + _gap(begin)
        full = self.template.full_text(self.tokenizer, question, begin + _gap(begin) + answer)
        # a template may strip or divide the answer
        before = full[: _common_length(before, full)]
        follows = _common_length(after[::-1], full[len(before) :][::-1])

        ids = self.tokens(full)
        start = _common_length(ids, self._without_eos(before))
        end = len(self._stripped(ids))
        if follows:
            answered = self._without_eos(full[:-follows])
            common = _common_length(ids, answered)
            # a token that is merged with the text after the answer
            end = common + (common < len(answered))
        if not answer.strip() or start >= end:
            raise InputError(
                f"the answer {answer!r}{row and f' of {row}'} has no token of its own after the "
                "prompt; check the template and the row."
            )
        return ids, start, end

    def _labelled(self, ids: list[int], start: int, text: str, row: str) -> Pair:
        """Ids within `max_length` and their labels from `start` on."""
        ids = self._within_length(ids, text, row)
        if start >= len(ids):
            raise InputError(
                f"the question{row and f' of {row}'} fills all {self.max_length} tokens, so "
                "nothing of the answer remains; give a larger max_length."
            )
        return ids, [IGNORED] * start + ids[start:]

    def _without_eos(self, text: str) -> list[int]:
        """Token ids of a text; some tokenizers end every text by the end of the sequence."""
        return self._stripped(self.tokens(text))

    def _stripped(self, ids: Sequence[int]) -> list[int]:
        """Token ids without the ends of the sequence behind them."""
        count = len(ids)
        while count > 1 and ids[count - 1] == self.eos:
            count -= 1
        return list(ids[:count])

    def _within_length(self, ids: list[int], text: str, row: str = "") -> list[int]:
        if len(ids) <= self.max_length:
            return ids
        if self.too_long == "refuse":
            raise InputError(
                f"{row or repr(text[:60])} has {len(ids)} tokens, and max_length is "
                f"{self.max_length}; give a larger one (as far as the context goes), or too_long: "
                "cut."
            )
        self._cut.add(text)
        return ids[: self.max_length]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids, without special tokens."""
        return self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=True)


def _gap(begin: str) -> str:
    """Space between the first words of an answer and the rest of it."""
    return " " if begin and not begin[-1].isspace() else ""


def _common_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Length of the longest common prefix."""
    return next(
        (index for index, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
