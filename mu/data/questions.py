"""Question sets, and datasets of token sequences made from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mu.data.encoding import Encoder
from mu.data.sequences import Pair, collate, count_labelled
from mu.utils.errors import InputError


@dataclass(frozen=True, eq=False)
class QuestionSet:
    """Questions with answers, under a name.

    Attributes:
        name: `forget`, `retain`, `world_facts`.
        rows: each has `question` and `answer`, and perhaps `paraphrased_question`,
            `paraphrased_answer` and `perturbed_answer` (a list).
        indices: `[N]` int64, stable indices of the rows.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]
    indices: np.ndarray

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.indices):
            raise InputError(
                f"the set {self.name} has {len(self.rows)} rows and {len(self.indices)} indices."
            )

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, field: str) -> list[Any]:
        """One field of all rows.

        Raises:
            InputError: names the set and the field that a row lacks.
        """
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

    def select(self, positions: Sequence[int]) -> QuestionSet:
        """The set of the rows at `positions`."""
        return QuestionSet(
            self.name,
            [self.rows[position] for position in positions],
            self.indices[np.asarray(positions, dtype=np.int64)],
        )


class TokenRows:
    """Dataset of token sequences, each tokenised when it is first read.

    Args:
        make: makes the sequence at a position.
        indices: `[N]` distinct int64, the samples' stable indices.
        texts: strings of every sample, by name (`question`, `answer`).
    """

    def __init__(
        self,
        make: Callable[[int], Pair],
        indices: np.ndarray,
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.make = make
        self.indices = np.asarray(indices, dtype=np.int64)
        self.texts = {name: list(values) for name, values in (texts or {}).items()}
        self._pairs: dict[int, Pair] = {}

    @classmethod
    def from_questions(
        cls, question_set: QuestionSet, encoder: Callable[[], Encoder], scored: bool = False
    ) -> TokenRows:
        """Dataset of questions with their answers.

        Args:
            question_set: the questions.
            encoder: factory of the encoder, called for the first sequence.
            scored: labels of `Encoder.scored_pair`, in place of those of `pair`.
        """
        questions = question_set.column("question")
        answers = question_set.column("answer")

        def make(position: int) -> Pair:
            row = f"row {position} of the set {question_set.name}"
            encode = encoder().scored_pair if scored else encoder().pair
            return encode(questions[position], answers[position], row)

        return cls(make, question_set.indices, {"question": questions, "answer": answers})

    def __len__(self) -> int:
        return len(self.indices)

    def pair(self, position: int) -> Pair:
        """Token ids and labels of the sequence at `position`."""
        if position not in self._pairs:
            self._pairs[position] = self.make(position)
        return self._pairs[position]

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Labelled tokens of each sequence, `[N]`."""
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
