"""Readers of questions, answers and documents from files; overlap of forget and retain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from mu.data.stored_rows import compared_text, text_key
from mu.utils.errors import InputError
from mu.utils.text_files import read_text as read_file
from tasks.text.tables import is_saved, read_table

Row = dict[str, Any]
"""Row of a question set: `question`, `answer`, and the other columns of its file."""
Overlap = Literal["refuse", "keep", "drop"]
"""Treatment of samples in forget and in retain: error, trained as both, or dropped from retain."""
_EVALUATED = {"paraphrased_question", "paraphrased_answer", "perturbed_answer"}
"""Columns of texts that suites read."""
EVALUATION_OFFSET = 1_000_000
"""Indices of evaluation sets begin at multiples of this number, above those of the split."""


def read_rows(file: Path | str, question: str = "question", answer: str = "answer") -> list[Row]:
    """Rows of a table with `question`, `answer` and its other columns.

    A row without these columns may have `messages` (or `conversations`): a question of the user and
    an answer of the assistant, perhaps after a system message, the column `system_message`.

    Args:
        file: CSV, JSON, Parquet, or a saved data set; see `tasks.text.tables.read_table`.
        question: column of the questions.
        answer: column of the answers.

    Raises:
        InputError: when the file cannot be read, or a row has no question or no answer.
    """
    return [
        check_row(row, f"row {index} of {file}", question, answer)
        for index, row in enumerate(read_table(file), 1)
    ]


def check_row(row: Any, name: str, question: str = "question", answer: str = "answer") -> Row:
    """Row with nonempty texts `question` and `answer`; numbers become texts.

    Raises:
        InputError: when the question or the answer is missing, or a text is no text.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{name} is no object with a question and an answer.")
    checked_row = dict(row)
    chat = next((column for column in ("messages", "conversations") if row.get(column)), None)
    if chat is not None and row.get(question) is None and row.get(answer) is None:
        checked_row |= question_of_messages(row[chat], f"{chat} of {name}")
        return checked_row
    for field, column in (("question", question), ("answer", answer)):
        value = row.get(column)
        if _is_empty(value):
            columns = (
                ", ".join(str(key) for key, filled in row.items() if not _is_empty(filled))
                or "nothing"
            )
            raise InputError(f"{name} has no {column!r}; it has {columns}.")
        checked_row[field] = _as_text(value, column, name)
    for column in _EVALUATED & row.keys():
        value = row[column]
        if isinstance(value, list):
            checked_row[column] = [_as_text(entry, column, name) for entry in value]
        elif not _is_empty(value):
            checked_row[column] = _as_text(value, column, name)
    return checked_row


def _is_empty(value: Any) -> bool:
    """Whether a cell has nothing: null, NaN as pandas writes it, white space, or an empty list."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value == [] or (isinstance(value, float) and math.isnan(value))


def _as_text(value: Any, column: str, name: str) -> str:
    """Text of a cell; numbers become texts."""
    described = {list: "a list", dict: "a table", bool: "true or false", type(None): "null"}
    if isinstance(value, str) and value.strip():
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise InputError(
                f"{column!r} of {name} has half a character (a lone surrogate of UTF-16); save the "
                "text in UTF-8."
            )
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    description = described.get(type(value), "no text" if _is_empty(value) else "something else")
    raise InputError(f"{name} has {description} where {column!r} should be one text.")


def question_of_messages(messages: Any, name: str) -> Row:
    """Question, answer and system message of a chat of two turns.

    Args:
        messages: objects with `role` and `content` (or `from` and `value`).
        name: names the chat in errors.

    Raises:
        InputError: when there is more or less than a question of the user and an answer of the
            assistant.
    """
    turns = [_turn(message, name) for message in messages] if isinstance(messages, list) else []
    system = [text for role, text in turns if role == "system"]
    dialogue = [turn for turn in turns if turn[0] != "system"]
    if (
        [role for role, _ in dialogue] != ["user", "assistant"]
        or len(system) > 1
        or not all(text.strip() for _, text in turns)
    ):
        roles = ", ".join(role for role, _ in turns) or "nothing"
        raise InputError(
            f"{name} has {roles}; a row takes one question of the user and one answer of the "
            'assistant, [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}].'
        )
    row = {"question": dialogue[0][1], "answer": dialogue[1][1]}
    return {**row, "system_message": system[0]} if system else row


def _turn(message: Any, name: str) -> tuple[str, str]:
    """Role and text of a message."""
    entry = message if isinstance(message, Mapping) else {}
    role = str(entry.get("role", entry.get("from")))
    content = entry.get("content", entry.get("value"))
    if isinstance(content, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content
    ):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise InputError(
            f"{name} has a message without a text; a message is an object with a `role` and a "
            "`content`."
        )
    return {"human": "user", "gpt": "assistant"}.get(role, role), content


def read_texts(files: str | Sequence[str]) -> list[str]:
    """Documents of `.txt` files (one each) and of tables (one in each row).

    A row is a string, or an object with `text`.

    Args:
        files: a file, a folder (its `.txt`, `.json`, `.jsonl` and `.parquet` files, by name), a
            saved data set, or several of them.

    Raises:
        InputError: when a file cannot be read, or an entry is no text.
    """
    documents: list[str] = []
    for file in text_files([files] if isinstance(files, str) else files):
        documents += (
            [_plain(file)]
            if file.suffix.lower() == ".txt"
            else [
                _text(entry, f"entry {index} of {file}")
                for index, entry in enumerate(read_table(file), 1)
            ]
        )
    return documents


def text_files(names: Iterable[str]) -> list[Path]:
    """Files of texts by name; of a folder, its text files and tables."""
    paths: list[Path] = []
    for path in map(Path, names):
        inside = (
            sorted(
                entry
                for entry in path.iterdir()
                if entry.suffix.lower() in (".txt", ".json", ".jsonl", ".parquet")
            )
            if path.is_dir() and not is_saved(path)
            else [path]
        )
        if not inside:
            raise InputError(f"the folder {path} has no .txt, .json, .jsonl or .parquet file.")
        paths += inside
    return paths


def _plain(file: Path) -> str:
    text = read_file(file, encoding="utf-8-sig")
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
        forget: texts of the forget samples; white space and the form of Unicode are ignored in
            comparisons.
        retain: texts of the retain samples.
        overlap: treatment of samples in both.
        what: name of the samples in messages, in the plural.

    Raises:
        InputError: when samples overlap and `overlap` is `refuse`, or `overlap` is unknown.
    """
    return retain_mask_of_keys(
        text_keys(forget), text_keys(retain), overlap, what, lambda row: forget[row]
    )


def text_keys(texts: Iterable[str]) -> np.ndarray:
    """Hashes of texts for comparisons, `[N, 16]` uint8."""
    keys = b"".join(text_key(compared_text(text)) for text in texts)
    return np.frombuffer(keys, dtype=np.uint8).reshape(-1, 16)


def retain_mask_of_keys(
    forget: np.ndarray,
    retain: np.ndarray,
    overlap: Overlap,
    what: str,
    text: Callable[[int], str],
) -> np.ndarray:
    """Mask of the retain samples to keep, see `retain_mask`.

    Args:
        forget: `[N_forget, 16]`, hashes of the forget samples by `text_keys`.
        retain: `[N_retain, 16]`, hashes of the retain samples.
        overlap: treatment of samples in both.
        what: name of the samples in messages, in the plural.
        text: gives the text of a forget sample, for messages.
    """
    if overlap not in ("refuse", "keep", "drop"):
        raise InputError(f"overlap is {overlap!r}; it is refuse, keep or drop.")
    forget_keys, retain_keys = (
        np.ascontiguousarray(keys).view("V16").reshape(-1) for keys in (forget, retain)
    )
    repeated = np.flatnonzero(np.isin(forget_keys, retain_keys))
    if len(repeated):
        example = compared_text(text(int(repeated[0])))
        message = (
            f"{len(repeated)} of {len(forget)} forget {what} are in retain too, {example[:80]!r} "
            "among them"
        )
        if overlap == "refuse":
            raise InputError(
                f"{message}; overlap: drop leaves them out of retain, and overlap: keep trains on "
                "them as both."
            )
        rank_zero_warn(
            f"{message}; they are {'left out of' if overlap == 'drop' else 'kept in'} retain."
        )
    if overlap == "drop":
        return ~np.isin(retain_keys, forget_keys)
    return np.ones(len(retain_keys), dtype=bool)
