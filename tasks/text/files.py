"""Readers of questions, answers and documents from files; overlap of forget and retain."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from mu.data.questions import QuestionSet
from mu.utils.errors import InputError
from mu.utils.files import read_json_lines

Row = dict[str, Any]
"""Row of a question set: `question`, `answer`, and the other columns of its file."""
Overlap = Literal["refuse", "keep", "drop"]
"""Treatment of samples in forget and in retain: error, trained as both, or dropped from retain."""
EVALUATION_OFFSET = 1_000_000
"""Indices of evaluation sets begin at multiples of this number, above those of the split."""


def read_rows(file: Path | str, question: str = "question", answer: str = "answer") -> list[Row]:
    """Rows of a CSV file, a JSON array or JSON lines, with `question`, `answer` and other columns.

    Args:
        file: a `.csv` file, or JSON.
        question: column of the questions.
        answer: column of the answers.

    Raises:
        InputError: when the file cannot be read, or a row has no question or no answer.
    """
    rows = _csv(Path(file)) if str(file).lower().endswith(".csv") else read_json_lines(file)
    return [
        check_row(row, f"row {index} of {file}", question, answer)
        for index, row in enumerate(rows, 1)
    ]


def check_row(row: Any, name: str, question: str = "question", answer: str = "answer") -> Row:
    """Row with nonempty texts `question` and `answer`; numbers become texts.

    Raises:
        InputError: when the question or the answer is missing.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{name} is no object with a question and an answer.")
    checked_row = dict(row)
    for field, column in (("question", question), ("answer", answer)):
        value = row.get(column)
        if isinstance(value, list | dict):
            raise InputError(
                f"{name} has a {'list' if isinstance(value, list) else 'table'} where {column!r} "
                "should be one text."
            )
        if value is None or not str(value).strip():
            columns = (
                ", ".join(str(key) for key, filled in row.items() if filled not in (None, "", []))
                or "nothing"
            )
            raise InputError(f"{name} has no {column!r}; it has {columns}.")
        checked_row[field] = str(value)
    return checked_row


def _csv(file: Path) -> list[Row]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows: list[Row] = list(csv.DictReader(opened))
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"there is no file {file}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file} is not a CSV file in UTF-8 ({error}).") from error
    if not rows:
        raise InputError(f"{file} has no rows.")
    ragged = next((index for index, row in enumerate(rows, 1) if None in row), None)
    if ragged is not None:
        raise InputError(
            f"row {ragged} of {file} has more entries than there are columns; put a text with "
            "commas in quotation marks."
        )
    return rows


def read_texts(files: str | Sequence[str]) -> list[str]:
    """Documents of `.txt` files (one each), JSON lines or JSON arrays (one in each entry).

    An entry is a string, or an object with `text`.

    Args:
        files: a file, a folder (its `.txt`, `.json` and `.jsonl` files, by name), or several of
            them.

    Raises:
        InputError: when a file cannot be read, or an entry is no text.
    """
    documents: list[str] = []
    for file in _files([files] if isinstance(files, str) else files):
        documents += (
            [_plain(file)]
            if file.suffix.lower() == ".txt"
            else [
                _text(entry, f"entry {index} of {file}")
                for index, entry in enumerate(read_json_lines(file), 1)
            ]
        )
    return documents


def _files(names: Iterable[str]) -> list[Path]:
    paths: list[Path] = []
    for path in map(Path, names):
        inside = (
            sorted(
                entry
                for entry in path.iterdir()
                if entry.suffix.lower() in (".txt", ".json", ".jsonl")
            )
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise InputError(f"the folder {path} has no .txt, .json or .jsonl file.")
        paths += inside
    return paths


def _plain(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"there is no file {file}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not a text file in UTF-8.") from error
    if not text.strip():
        raise InputError(f"{file} has no text.")
    return text


def _text(entry: Any, name: str) -> str:
    text = entry.get("text") if isinstance(entry, Mapping) else entry
    if not isinstance(text, str) or not text.strip():
        raise InputError(
            f"{name} is no text; it should be a string, or an object with a string `text`."
        )
    return text


def retain_mask(
    forget: Sequence[str], retain: Sequence[str], overlap: Overlap, what: str
) -> np.ndarray:
    """Mask of the retain samples to keep, bool `[N_retain]`; warns about overlap with forget.

    Args:
        forget: texts of the forget samples; white space is ignored in comparisons.
        retain: texts of the retain samples.
        overlap: treatment of samples in both.
        what: name of the samples in messages, in the plural.

    Raises:
        InputError: when samples overlap and `overlap` is `refuse`, or `overlap` is unknown.
    """
    if overlap not in ("refuse", "keep", "drop"):
        raise InputError(f"overlap is {overlap!r}; it is refuse, keep or drop.")
    forget_texts = [" ".join(text.split()) for text in forget]
    retain_texts = [" ".join(text.split()) for text in retain]
    both = set(forget_texts) & set(retain_texts)
    duplicated = np.array([text in both for text in retain_texts], dtype=bool)
    if both:
        count = sum(text in both for text in forget_texts)
        example = next(text for text in forget_texts if text in both)
        message = (
            f"{count} of {len(forget)} forget {what} are in retain too, {example[:80]!r} among them"
        )
        if overlap == "refuse":
            raise InputError(
                f"{message}; overlap: drop leaves them out of retain, and overlap: keep trains on "
                "them as both."
            )
        rank_zero_warn(
            f"{message}; they are {'left out of' if overlap == 'drop' else 'kept in'} retain."
        )
    return ~duplicated if overlap == "drop" else np.ones(len(retain_texts), dtype=bool)


def row_text(row: Mapping[str, Any]) -> str:
    """Question and answer as one text, for comparisons."""
    return f"{row['question']}\n{row['answer']}"


def digest(texts: Iterable[Any]) -> str:
    """Hash of texts (or token ids) in their order, eight hexadecimal digits."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(json.dumps(text).encode() + b"\n")
    return sha.hexdigest()[:8]


def evaluation_sets(
    files: Mapping[str, str] | None, question: str = "question", answer: str = "answer"
) -> dict[str, QuestionSet]:
    """Question sets for evaluation only, by name, from one file each."""
    read = {name: read_rows(file, question, answer) for name, file in (files or {}).items()}
    return {
        name: QuestionSet(name, rows, EVALUATION_OFFSET * position + np.arange(len(rows)))
        for position, (name, rows) in enumerate(read.items(), 1)
    }
