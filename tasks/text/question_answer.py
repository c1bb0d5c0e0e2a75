"""Questions and answers from a user's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mu.data.questions import QuestionSet
from mu.data.split import Split
from mu.utils.errors import InputError
from tasks.selectors import Selector, draw, portion
from tasks.text.base import TextTask
from tasks.text.files import Overlap, Row, digest, evaluation_sets, read_rows, retain_mask, row_text


@dataclass(frozen=True)
class ByValue(Selector):
    """Forget the rows that say one of these values in the column of the task's `by` (an author's
    name, `forget`).

    Attributes:
        values: a value, or a list of values, as text; white space around them does not count.
    """

    values: str | list[str]

    @property
    def _value_list(self) -> list[str]:
        return sorted({str(value).strip() for value in np.atleast_1d(self.values)})

    def select(self, labels: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
        """See `Selector`."""
        values = np.array([str(label).strip() for label in labels], dtype=object)
        absent = [value for value in self._value_list if value not in values]
        if absent:
            present = sorted(set(values))
            shortened = ", ".join(present[:10]) + (
                f" and {len(present) - 10} more" if len(present) > 10 else ""
            )
            raise InputError(
                f"no row says {absent[0]!r} in the column by which is forgotten; it has "
                f"{shortened}."
            )
        return np.sort(indices[np.isin(values.astype(str), self._value_list)])

    def describe(self) -> dict[str, Any]:
        """See `Selector`."""
        return {"selector": "ByValue", "values": self._value_list}


class QuestionAnswer(TextTask):
    """Questions and answers of a JSON array, JSON lines or a CSV file (by its ending): two files,
    or one and a selector.

    A row needs a question and an answer; its other columns stay, so that suites find
    `paraphrased_answer`, `paraphrased_question` and `perturbed_answer` (a list) where the file has
    them. The stable index of a row is its place in the file; with two files, retain goes on where
    forget ends. What is to be forgotten is chosen first; validation and test are drawn from the
    rest by `split_seed`, and are trained on by no model. The rows of `test` are also the set
    `holdout`.

    Args:
        path: one file with all rows, of which `selector` says what is forgotten.
        selector: `tasks.ByValue(values)` or, of whole numbers, `tasks.ByClass(classes)` in the
            column `by`; or a random share, a number of rows, or a file of row numbers (the first is
            0).
        by: the column that the selector looks at.
        forget: a file of what is forgotten, in place of `path`.
        retain: a file of what is kept, with `forget`.
        question: the column of the questions.
        answer: the column of the answers.
        validation_fraction: share of what is not forgotten that is held out for searches.
        test_fraction: share of what is not forgotten that is held out for tests.
        split_seed: decides what is held out, and what a random selector chooses.
        overlap: `refuse` questions that stand in forget and in retain with the same answer, `keep`
            them in both, or `drop` them from retain.
        further: files of other questions that are only evaluated, by the name of their set.
        **kwargs: tokenizer, template, lengths and batch sizes, see TextTask.
    """

    def __init__(
        self,
        path: str | None = None,
        selector: Selector | None = None,
        by: str | None = None,
        forget: str | None = None,
        retain: str | None = None,
        question: str = "question",
        answer: str = "answer",
        validation_fraction: float = 0.0,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        overlap: Overlap = "refuse",
        further: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        one_file = path is not None and selector is not None
        two_files = forget is not None and retain is not None
        if one_file == two_files or any(
            value is not None for value in ((forget, retain) if one_file else (path, selector, by))
        ):
            arguments = [
                name
                for name, value in (
                    ("path", path),
                    ("selector", selector),
                    ("by", by),
                    ("forget", forget),
                    ("retain", retain),
                )
                if value is not None
            ]
            raise InputError(
                "QuestionAnswer reads either `path` with a `selector` that says what is "
                "forgotten, or the two files `forget` and `retain`, not "
                f"{', '.join(arguments) or 'nothing'}; set what is too much to null."
            )
        shares = {"validation": validation_fraction, "test": test_fraction}
        if any(not 0 <= share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
            raise InputError(
                f"validation_fraction {validation_fraction} and test_fraction {test_fraction} "
                "must be at least 0 and leave something to train on."
            )
        self.path = path
        self.selector = selector
        self.by = by
        self.forget = forget
        self.retain = retain
        self.question = question
        self.answer = answer
        self.further = further
        self.overlap: Overlap = overlap
        self.shares = shares
        self.split_seed = split_seed

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        rows, forget, described = self._one_file() if self.path is not None else self._two_files()
        rest = np.setdiff1d(np.arange(len(rows)), forget)
        rest = rest[
            retain_mask(
                [row_text(rows[index]) for index in forget],
                [row_text(rows[index]) for index in rest],
                self.overlap,
                "questions",
            )
        ]
        parts = {"forget": forget}
        size = len(rest)
        for name, share in self.shares.items():
            parts[name] = draw(rest, portion(size, share), self.split_seed, name)
            rest = np.setdiff1d(rest, parts[name])
        parts = {
            name: ids
            for name, ids in {**parts, "retain": rest}.items()
            if len(ids) or name in ("forget", "retain")
        }
        split = Split(
            f"question-answer-{digest(map(row_text, rows))}", parts, described, self.split_seed
        )
        sets = {
            name: QuestionSet(name, [rows[index] for index in ids], ids)
            for name, ids in split.parts.items()
        }
        if "test" in sets:
            sets["holdout"] = QuestionSet("holdout", sets["test"].rows, sets["test"].indices)
        return split, {**evaluation_sets(self.further, self.question, self.answer), **sets}

    def _two_files(self) -> tuple[list[Row], np.ndarray, dict[str, Any]]:
        forget, retain = (
            read_rows(str(file), self.question, self.answer) for file in (self.forget, self.retain)
        )
        return (
            [*forget, *retain],
            np.arange(len(forget)),
            {"selector": "files", "forget": len(forget), "retain": len(retain)},
        )

    def _one_file(self) -> tuple[list[Row], np.ndarray, dict[str, Any]]:
        assert self.path is not None and self.selector is not None
        rows = read_rows(self.path, self.question, self.answer)
        labels = (
            np.zeros(len(rows), dtype=np.int64)
            if self.by is None
            else _labels(rows, self.by, self.path)
        )
        if self.by is None and isinstance(self.selector, ByValue):
            raise InputError("ByValue looks at a column; name it as `by`.")
        chosen = self.selector.select(labels, np.arange(len(rows)), self.split_seed)
        return rows, chosen, {**self.selector.describe(), **({"by": self.by} if self.by else {})}


def _labels(rows: Sequence[Mapping[str, Any]], column: str, file: str) -> np.ndarray:
    """A column's values `[N]`: whole numbers where all are, else texts."""
    lacking = next(
        (index for index, row in enumerate(rows, 1) if row.get(column) in (None, "")), None
    )
    if lacking is not None:
        raise InputError(
            f"row {lacking} of {file} says nothing in the column {column!r}; it has "
            f"{', '.join(map(str, rows[lacking - 1]))}."
        )
    values = [row[column] for row in rows]
    try:
        return np.array([int(str(value)) for value in values], dtype=np.int64)
    except ValueError:
        return np.array([str(value) for value in values], dtype=object)
