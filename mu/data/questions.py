"""Question sets, and datasets of token sequences made from them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from mu.data.encoding import Encoder
from mu.data.sequences import Pair, collate, count_labelled
from mu.data.stored_rows import Rows, StoredRows, content_key, take_rows
from mu.data.token_files import TokenFile, counted, store_tokens
from mu.utils.errors import InputError

LONG = 10_000
"""Rows from which on `auto` has the token sequences of a set in the cache."""


InMemory = bool | Literal["auto"]
"""Whether texts and token sequences are in memory, or in the cache."""


@dataclass(frozen=True, eq=False)
class QuestionSet:
    """Questions with answers, under a name.

    Attributes:
        name: `forget`, `retain`, `world_facts`.
        rows: each has `question` and `answer`, and perhaps `paraphrased_question`,
            `paraphrased_answer` and `perturbed_answer` (a list). They are in memory, or in the
            cache (`mu.data.stored_rows`).
        indices: `[N]` int64, stable indices of the rows.
    """

    name: str
    rows: Rows
    indices: np.ndarray

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.indices):
            raise InputError(
                f"the set {self.name} has {len(self.rows)} rows and {len(self.indices)} indices."
            )

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, field: str) -> Sequence[Any]:
        """One field of all rows; questions and answers of rows in the cache stay there.

        Raises:
            InputError: names the set and the field that a row lacks.
        """
        if isinstance(self.rows, StoredRows) and field in ("question", "answer"):
            return self.rows.column(field)
        empty = (None, "", [])
        for position, row in enumerate(self.rows):
            if row.get(field) in empty:
                fields = ", ".join(
                    sorted(name for name, value in row.items() if value not in empty)
                )
                raise InputError(
                    f"row {position} of the set {self.name} has no {field!r}; it has {fields}."
                )
        return [row[field] for row in self.rows]

    def system_messages(self) -> list[str | None]:
        """Distinct system messages of rows that were chats; None for rows without one."""
        if isinstance(self.rows, StoredRows):
            return self.rows.column("system_message").coded()[0]
        return list(dict.fromkeys(row.get("system_message") for row in self.rows))

    @property
    def content(self) -> str:
        """Hash of the questions and answers in their order, 32 hexadecimal digits."""
        if isinstance(self.rows, StoredRows):
            keys = self.rows.keys("content").tobytes()
        else:
            keys = b"".join(map(content_key, self.rows))
        return hashlib.blake2b(keys, digest_size=16).hexdigest()

    def select(self, positions: Sequence[int] | np.ndarray) -> QuestionSet:
        """The set of the rows at `positions`."""
        return QuestionSet(
            self.name,
            take_rows(self.rows, positions),
            self.indices[np.asarray(positions, dtype=np.int64)],
        )


class TokenRows:
    """Dataset of token sequences, each tokenised when it is first read, or all of them in a file.

    Args:
        make: makes the sequence at a position.
        indices: `[N]` distinct int64, the samples' stable indices.
        texts: strings of every sample, by name (`question`, `answer`).
        stored: opens the file of all sequences in the cache; None, or what it returns, for none.
    """

    def __init__(
        self,
        make: Callable[[int], Pair],
        indices: np.ndarray,
        texts: Mapping[str, Sequence[str]] | None = None,
        stored: Callable[[], TokenFile | None] | None = None,
    ) -> None:
        self.make = make
        self.indices = np.asarray(indices, dtype=np.int64)
        self.texts = dict(texts or {})
        self._stored = stored
        self._pairs: dict[int, Pair] = {}

    @classmethod
    def from_questions(
        cls,
        question_set: QuestionSet,
        encoder: Callable[[], Encoder],
        scored: bool = False,
        in_memory: InMemory = True,
    ) -> TokenRows:
        """Dataset of questions with their answers.

        Args:
            question_set: the questions.
            encoder: factory of the encoder, called for the first sequence.
            scored: labels of `Encoder.scored_pair`, in place of those of `pair`.
            in_memory: whether the sequences are in memory, or in the cache, where they are
                tokenised once; `auto` has those of 10,000 rows and more in the cache, and of rows
                that are there themselves.
        """
        questions = question_set.column("question")
        answers = question_set.column("answer")

        def make(position: int) -> Pair:
            row = f"row {position} of the set {question_set.name}"
            encode = encoder().scored_pair if scored else encoder().pair
            return encode(questions[position], answers[position], row)

        def stored() -> TokenFile | None:
            content = [question_set.content, scored]
            title = f"the set {question_set.name}"
            count = len(question_set)
            file = store_tokens(
                encoder(), content, lambda facts: map(make, counted(count, title)), title
            )
            return None if file is None else TokenFile(file)

        long = len(question_set) >= LONG or isinstance(question_set.rows, StoredRows)
        in_cache = long if in_memory == "auto" else not in_memory
        texts = {"question": questions, "answer": answers}
        return cls(make, question_set.indices, texts, stored if in_cache else None)

    def __len__(self) -> int:
        return len(self.indices)

    @functools.cached_property
    def file(self) -> TokenFile | None:
        """File of the sequences in the cache; None where they are in memory."""
        return None if self._stored is None else self._stored()

    def pair(self, position: int) -> Pair:
        """Token ids and labels of the sequence at `position`."""
        if self.file is not None:
            return self.file.pair(position)
        if position not in self._pairs:
            self._pairs[position] = self.make(position)
        return self._pairs[position]

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Labelled tokens of each sequence, `[N]`."""
        if self.file is not None:
            return self.file.weights
        counts = [count_labelled(self.pair(position)) for position in range(len(self))]
        return np.asarray(counts, dtype=np.float64)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """One sample, without a batch dimension."""
        return {name: value[0] for name, value in self.__getitems__([position]).items()}

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Any]:
        """The samples at `positions`, padded to the longest."""
        rows = [int(position) for position in positions]
        part: dict[str, Any] = collate([self.pair(row) for row in rows])
        part["index"] = torch.from_numpy(self.indices[rows])
        for name, values in self.texts.items():
            part[name] = [values[row] for row in rows]
        return part
