"""TOFU task: fictitious authors (Maini et al., COLM 2024, arXiv 2401.06121)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mu.data.questions import QuestionSet
from mu.data.split import Split
from mu.data.stored_rows import row_text, text_digest
from mu.utils.errors import InputError
from mu.utils.extras import require
from mu.utils.hub import reading
from tasks.text.base import TextTask
from tasks.text.files import EVALUATION_OFFSET, Overlap, Row, check_row, read_rows, retain_mask

_CLOSED = ("real_authors", "world_facts")


class TOFU(TextTask):
    """TOFU: forget the last authors of a list of fictitious authors, and retain the others.

    The split has the parts `forget`, `retain` and, with a holdout set, `test` (authors that no
    model was trained on). The stable index of a row is its position in `full`. Beside the question
    sets of the same names there are

    * `retain_perturbed`, the retained rows that measure utility, and `forget`, both with
      `paraphrased_answer`, `paraphrased_question` and `perturbed_answer`;
    * `real_authors` and `world_facts`, closed questions with wrong answers in `perturbed_answer`;
    * `holdout`, the rows of `test`.

    Missing files are derived from others where possible: forget and retain sets from `full`, the
    wrong answers of a closed question from its options. Without perturbed files, rows have question
    and answer only, and metrics that need more raise an error. The refusals of TOFU
    (`idontknow.jsonl`, plain text) are an argument of a method: `mu.methods.Refusal(file=...)`.

    Args:
        path: hub id (read by the package datasets), or a folder with a file of JSON lines (or
            Parquet) for each set: `full.json`, `forget10.json`, ...
        forget: `forgetNN`, the last NN % of `full`; or `searchNN`, the first NN % of it, for the
            choice of a method's settings. The rephrasings of the latter come from
            `retain_perturbed`, which keeps its other rows.
        holdout: a set of authors that were never trained on; `matching` is `holdoutNN` where it
            exists, None uses no set.
        overlap: `refuse` rows that are in forget and in retain, `keep` them in both, or `drop` them
            from retain.
        **kwargs: tokenizer, template, lengths and batch sizes, see TextTask.

    Example: `TOFU("data/tofu", forget="forget05")`.
    """

    def __init__(
        self,
        path: str = "locuslab/TOFU",
        forget: str = "forget10",
        holdout: str | None = "matching",
        overlap: Overlap = "refuse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not re.fullmatch(r"(forget|search)\d\d", forget):
            raise InputError(
                f"forget is {forget!r}; it is forget and two digits, the percentage to be "
                "forgotten: forget01, forget05, forget10 (or search05, to choose settings)."
            )
        self.path = path
        self.forget = forget
        self.holdout = holdout
        self.overlap: Overlap = overlap

    @cached_property
    def _tables(self) -> Mapping[str, Any]:
        return _Folder(self.path) if Path(self.path).is_dir() else _Hub(self.path)

    def table(self, name: str) -> list[Row] | None:
        """Rows of a set of TOFU, by its name; None if the set does not exist."""
        return self._tables.get(name)

    def read(self) -> tuple[Split, dict[str, QuestionSet]]:
        full = self.table("full")
        if full is None:
            raise InputError(f"{self.path} has no set `full`, of which the other sets are parts.")
        retain_rows = self.table("retain_perturbed")
        forgotten, forget = (
            self._search_rows(full, retain_rows or [])
            if self.forget.startswith("search")
            else self._forget_rows(full)
        )
        remaining = np.setdiff1d(np.arange(len(full)), forgotten)
        remaining_rows = [full[index] for index in remaining]
        retained = remaining[
            retain_mask(
                [row_text(row) for row in forget],
                [row_text(row) for row in remaining_rows],
                self.overlap,
                "rows",
            )
        ]
        sets = {
            "forget": QuestionSet("forget", forget, forgotten),
            "retain": QuestionSet("retain", [full[index] for index in retained], retained),
        }
        if retain_rows is not None and self.forget.startswith(
            "search"
        ):  # rows of the search set are not retained
            searched = {row_text(row) for row in forget}
            retain_rows = [row for row in retain_rows if row_text(row) not in searched] or None
        if retain_rows is not None:
            sets["retain_perturbed"] = QuestionSet(
                "retain_perturbed",
                retain_rows,
                remaining[_retain_positions(retain_rows, remaining_rows, self.path)],
            )
        self._add_evaluation_sets(sets)
        parts = {name: sets[name].indices for name in ("forget", "retain", "test") if name in sets}
        selector = {"selector": "TOFU", "forget": self.forget, "rows": len(forget)}
        return Split(f"tofu-{text_digest(map(row_text, full))}", parts, selector, 0), sets

    def _add_evaluation_sets(self, sets: dict[str, QuestionSet]) -> None:
        """Add the holdout set, the closed questions, and the holdout rows as `test`."""
        evaluation_rows = {
            "holdout": self._holdout_rows(self.forget[-2:]),
            **{name: self._closed_questions(name) for name in _CLOSED},
        }
        for position, (name, rows) in enumerate(evaluation_rows.items(), 1):
            if rows is not None:
                sets[name] = QuestionSet(
                    name, rows, EVALUATION_OFFSET * position + np.arange(len(rows))
                )
        if "holdout" in sets:
            sets["test"] = QuestionSet("test", sets["holdout"].rows, sets["holdout"].indices)

    def _search_rows(
        self, full: Sequence[Row], retain_rows: Sequence[Row]
    ) -> tuple[np.ndarray, list[Row]]:
        """Positions and rows of a `searchNN` forget set, with the answers of `retain_rows`."""
        count = round(len(full) * int(self.forget[-2:]) / 100)
        if not 0 < count < len(full):
            raise InputError(
                f"{self.forget} is {count} of the {len(full)} rows of full in {self.path}; some "
                "must be forgotten and some kept."
            )
        detailed = {row_text(row): row for row in retain_rows}
        return np.arange(count), [detailed.get(row_text(row), row) for row in full[:count]]

    def _forget_rows(self, full: Sequence[Row]) -> tuple[np.ndarray, list[Row]]:
        """Positions of the forget set in `full`, and its rows, perturbed if available."""
        name = self.forget
        percent = int(self.forget[-2:])
        plain = self.table(name)
        perturbed = self.table(f"{name}_perturbed")
        count = len(plain or perturbed or ()) or round(len(full) * percent / 100)
        start = len(full) - count
        if not 0 < count < len(full):
            raise InputError(
                f"{name} has {count} of the {len(full)} rows of full in {self.path}; some must be "
                "forgotten and some kept."
            )
        retain = f"retain{100 - percent:02d}"
        for set_name, rows, begin, end in (
            (name, plain, start, None),
            (f"{name}_perturbed", perturbed, start, None),
            (retain, self.table(retain), 0, start),
        ):
            if rows is not None:
                _check_part(set_name, rows, full[begin:end], begin, self.path)
        return np.arange(start, len(full)), perturbed or plain or list(full[start:])

    def _holdout_rows(self, percent: str) -> list[Row] | None:
        if self.holdout is None:
            return None
        rows = self.table(f"holdout{percent}" if self.holdout == "matching" else self.holdout)
        if rows is None and self.holdout != "matching":
            raise InputError(
                f"{self.path} has no set {self.holdout}; set holdout: null for no holdout set."
            )
        return rows

    def _closed_questions(self, name: str) -> list[Row] | None:
        """Closed questions with wrong answers, from perturbed rows or columns `option1`, ..."""
        rows = self.table(f"{name}_perturbed")
        plain = self.table(name) if rows is None else None
        if plain is None:
            return rows
        return [
            {
                **row,
                "perturbed_answer": [
                    value
                    for column, value in row.items()
                    if column.startswith("option") and value and value != row["answer"]
                ],
            }
            for row in plain
        ]


class _Folder(Mapping[str, Any]):
    """TOFU sets in a folder, one file each."""

    def __init__(self, path: str) -> None:
        self.files = {
            file.stem: file
            for ending in (".parquet", ".jsonl", ".json")
            for file in sorted(Path(path).glob(f"*{ending}"))
        }

    def __getitem__(self, name: str) -> list[Row]:
        return read_rows(self.files[name])

    def __iter__(self) -> Any:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


class _Hub(Mapping[str, Any]):
    """TOFU sets on the hub, one configuration each, with the split `train`."""

    def __init__(self, path: str) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", path) or path.startswith("."):
            raise InputError(
                f"there is no folder {path}; give one with the files of TOFU, or a hub id "
                "(locuslab/TOFU)."
            )
        require("TOFU from the hub", "datasets", extra="llm")
        from datasets import get_dataset_config_names

        self.path = path
        with reading("the data set", path):
            self.names: list[str] = list(get_dataset_config_names(path))

    def __getitem__(self, name: str) -> list[Row]:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        if name not in self.names:
            raise KeyError(name)
        with reading(f"the set {name}", self.path, DatasetsError):
            rows = list(load_dataset(self.path, name, split="train"))
        return [
            check_row(row, f"row {index} of {name} in {self.path}")
            for index, row in enumerate(rows, 1)
        ]

    def __iter__(self) -> Any:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _check_part(
    name: str, rows: Sequence[Row], expected: Sequence[Row], begin: int, path: str
) -> None:
    """Check that a set equals a section of `full`, in the same order."""
    if len(rows) != len(expected):
        raise InputError(
            f"{name} in {path} has {len(rows)} rows where full has {len(expected)}; the files do "
            "not belong together."
        )
    for offset, (row, expected_row) in enumerate(zip(rows, expected, strict=True)):
        if row_text(row) != row_text(expected_row):
            raise InputError(
                f"row {offset + 1} of {name} in {path} is not row {begin + offset + 1} of full "
                f"({row['question'][:60]!r} is in the place of {expected_row['question'][:60]!r}); "
                "the files do not belong together."
            )


def _retain_positions(rows: Sequence[Row], retain: Sequence[Row], path: str) -> np.ndarray:
    """Positions of retained rows among the rows of `full` that are not forgotten."""
    position_of = {row_text(row): position for position, row in reversed(list(enumerate(retain)))}
    unknown = next(
        (index for index, row in enumerate(rows, 1) if row_text(row) not in position_of), None
    )
    if unknown is not None:
        raise InputError(
            f"row {unknown} of retain_perturbed in {path} is not among the rows of full that are "
            "retained; the files do not belong together, or forget is too large."
        )
    return np.array([position_of[row_text(row)] for row in rows], dtype=np.int64)
