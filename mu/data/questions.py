"""Sets of questions and answers, and datasets of token sequences made from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mu.data.encoding import Encoder, Pair, collate, labelled
from mu.utils.errors import InputError


@dataclass(frozen=True, eq=False)
class QuestionSet:
    """Rows of one named set.

    Attributes:
        name: `forget`, `retain`, `world_facts`.
        rows: each has `question` and `answer`, and perhaps `paraphrased_question`,
            `paraphrased_answer` and `perturbed_answer` (a list).
        indices: `[N]` int64, stable numbers of the rows.
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
        """One entry of every row.

        Raises:
            InputError: names the set and the entry that a row lacks.
        """
        for number, row in enumerate(self.rows):
            if row.get(field) in (None, "", []):
                known = ", ".join(
                    sorted(name for name, value in row.items() if value not in (None, "", []))
                )
                raise InputError(
                    f"row {number} of the set {self.name} has no {field!r}; it has {known}."
                )
        return [row[field] for row in self.rows]

    def at(self, positions: Sequence[int]) -> QuestionSet:
        """Some of the rows."""
        return QuestionSet(
            self.name,
            [self.rows[place] for place in positions],
            self.indices[np.asarray(positions, dtype=np.int64)],
        )


class TokenRows:
    """A dataset of token sequences; a sequence is made when it is first asked for.

    Args:
        make: the sequence at a position.
        indices: `[N]` distinct int64, the samples' stable numbers.
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
        self._known: dict[int, Pair] = {}

    @classmethod
    def of(cls, questions: QuestionSet, encoder: Callable[[], Encoder]) -> TokenRows:
        """Questions with their answers; the encoder is asked for when the first sequence is
        made.
        """
        asked = questions.column("question")
        answered = questions.column("answer")
        return cls(
            lambda place: encoder().pair(
                asked[place], answered[place], f"row {place} of the set {questions.name}"
            ),
            questions.indices,
            {"question": asked, "answer": answered},
        )

    def __len__(self) -> int:
        return len(self.indices)

    def pair(self, position: int) -> Pair:
        """Token ids and labels."""
        if position not in self._known:
            self._known[position] = self.make(position)
        return self._known[position]

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """`[N]`, labelled tokens of every sequence."""
        return np.asarray(
            [labelled(self.pair(place)) for place in range(len(self))], dtype=np.float64
        )

    def __getitem__(self, position: int) -> dict[str, Any]:
        """One sample, without a batch dimension."""
        return {name: value[0] for name, value in self.__getitems__([position]).items()}

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Any]:
        """The samples at `positions`, padded to the longest."""
        places = [int(place) for place in positions]
        part: dict[str, Any] = collate([self.pair(place) for place in places])
        part["index"] = torch.from_numpy(self.indices[places])
        return part | {
            name: [values[place] for place in places] for name, values in self.texts.items()
        }
