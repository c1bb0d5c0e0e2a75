"""Question-answer task from files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from unicodedata import normalize

import numpy as np

from mu.data.questions import QuestionSet
from mu.data.split import Split
from mu.data.stored_rows import Rows, StoredRows, row_text, take_rows
from mu.utils.errors import InputError
from tasks.selectors import Selector, draw, portion
from tasks.text.base import TextTask
from tasks.text.files import Overlap, retain_mask_of_keys, text_keys
from tasks.text.question_files import QuestionRows, evaluation_sets, read_questions


@dataclass(frozen=True)
class ByValue(Selector):
    """Selector of rows with one of these values in the column `by` of the task.

    Attributes:
        values: a value, or a list of values. They are compared as texts, so 1 and 01 differ;
            surrounding white space and the form of Unicode are ignored.
    """

    values: str | int | list[str | int]

    def __post_init__(self) -> None:
        if not self._value_list:
            raise InputError("ByValue needs at least one value.")

    @property
    def _value_list(self) -> list[str]:
        values = self.values if isinstance(self.values, list | tuple) else [self.values]
        return sorted({_canonical(value) for value in values})

    def select(self, labels: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
        """Stable indices of the forget set, see `Selector`."""
        values = [_canonical(label) for label in labels.tolist()]
        present = sorted(set(values))
        absent = [value for value in self._value_list if value not in present]
        if absent:
            shortened = ", ".join(present[:10]) + (
                f" and {len(present) - 10} more" if len(present) > 10 else ""
            )
            raise InputError(
                f"no row has the value {absent[0]!r} in the column `by`; it has {shortened}."
            )
        chosen = set(self._value_list)
        return np.sort(indices[np.array([value in chosen for value in values], dtype=bool)])

    def describe(self) -> dict[str, Any]:
        """Settings of the selector as plain data, see `Selector`."""
        return {"selector": "ByValue", "values": self._value_list}


class QuestionAnswer(TextTask):
    """Questions and answers from files: one with a selector, or two.

    Files are JSON, JSON lines, CSV, Parquet, or folders that `save_to_disk` of datasets wrote.

    The split has the parts `forget`, `retain` and, where their shares are above 0, `validation` and
    `test`, which no model is trained on. The forget set is selected first; validation and test are
    drawn from the other rows by `split_seed`. The rows of `test` are also the question set
    `holdout`. A row needs a question and an answer, or `messages` with one of each (`role` and
    `content`); other columns are kept, such as `paraphrased_answer`, `paraphrased_question` and
    `perturbed_answer` (a list), which suites read.
    The stable index of a row is its position in the file; with two files, the indices of retain
    follow those of forget.

    Args:
        path: file of all rows, used with `selector`.
        selector: `tasks.ByValue(values)` or, for whole numbers, `tasks.ByClass(classes)`, on the
            column `by`; or a random share, a number of rows, or a file of row positions from 0.
        by: column that the selector reads.
        forget: file of the rows to forget, in place of `path`.
        retain: file of the rows to retain, used with `forget`.
        question: column of the questions.
        answer: column of the answers.
        validation_fraction: share of the other rows held out for searches, in [0, 1).
        test_fraction: share of the other rows held out for tests, in [0, 1).
        split_seed: draws the held-out rows, and the forget set of a random selector.
        overlap: `refuse` questions that are in forget and in retain with the same answer, `keep`
            them in both, or `drop` them from retain.
        further: files of question sets for evaluation only, by name.
        **kwargs: tokenizer, template, lengths and batch sizes, see TextTask.

    Raises:
        InputError: when neither or both of the two forms are given, or the shares are out of range.

    Example: `QuestionAnswer("all.json", ByValue("Ada Lovelace"), by="author")`.
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
                "QuestionAnswer reads either `path` with a `selector`, or the two files `forget` "
                f"and `retain`, not {', '.join(arguments) or 'nothing'}; set the others to null."
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
        table, forget, described = self._one_file() if self.path is not None else self._two_files()
        rows = table.rows
        keys = (
            rows.keys("overlap") if isinstance(rows, StoredRows) else text_keys(map(row_text, rows))
        )
        rest = np.setdiff1d(np.arange(len(rows)), forget)
        rest = rest[
            retain_mask_of_keys(
                keys[forget],
                keys[rest],
                self.overlap,
                "questions",
                lambda position: row_text(rows[int(forget[position])]),
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
        split = Split(f"question-answer-{table.digest}", parts, described, self.split_seed)
        sets = {
            name: QuestionSet(name, take_rows(rows, ids), ids) for name, ids in split.parts.items()
        }
        if "test" in sets:
            sets["holdout"] = QuestionSet("holdout", sets["test"].rows, sets["test"].indices)
        further = evaluation_sets(self.further, self.question, self.answer, self.in_memory)
        return split, {**further, **sets}

    def _two_files(self) -> tuple[QuestionRows, np.ndarray, dict[str, Any]]:
        paths = [str(self.forget), str(self.retain)]
        table = read_questions(paths, self.question, self.answer, self.in_memory)
        forget, retain = table.counts
        described = {"selector": "files", "forget": forget, "retain": retain}
        return table, np.arange(forget), described

    def _one_file(self) -> tuple[QuestionRows, np.ndarray, dict[str, Any]]:
        assert self.path is not None and self.selector is not None
        table = read_questions([self.path], self.question, self.answer, self.in_memory, self.by)
        rows = table.rows
        labels = (
            np.zeros(len(rows), dtype=np.int64)
            if self.by is None
            else _labels(rows, self.by, self.path)
        )
        if self.by is None and isinstance(self.selector, ByValue):
            raise InputError("ByValue reads a column; give its name as `by`.")
        chosen = self.selector.select(labels, np.arange(len(rows)), self.split_seed)
        return table, chosen, {**self.selector.describe(), **({"by": self.by} if self.by else {})}


def _canonical(value: Any) -> str:
    """Text of a value for comparisons: without surrounding white space, in Unicode's form NFC."""
    return normalize("NFC", str(value)).strip()


def _labels(rows: Rows, column: str, file: str) -> np.ndarray:
    """Values of a column `[N]`: integers if all are written as such, else texts."""
    if isinstance(rows, StoredRows):
        texts, codes = rows.column("by").coded()
        values = [json.loads(text) for text in texts]
    else:
        values = [row.get(column) for row in rows]
        codes = np.arange(len(rows))
    empty = [position for position, value in enumerate(values) if value in (None, "")]
    if empty:
        row = int(np.flatnonzero(np.isin(codes, empty))[0])
        raise InputError(
            f"row {row + 1} of {file} has no value in the column {column!r}; it has "
            f"{', '.join(map(str, rows[row]))}."
        )
    # 01 and 1_000 are texts
    if all(re.fullmatch(r"-?[1-9][0-9]{0,17}|0", str(value).strip()) for value in values):
        return np.array([int(str(value).strip()) for value in values], dtype=np.int64)[codes]
    return np.array([str(value) for value in values], dtype=object)[codes]
