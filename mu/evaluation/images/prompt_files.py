"""Prompt files: published CSV tables, and text files with a prompt a line.

Column names differ between tables; a prompt has the same attributes for all of them:

| attribute | column, the first that exists |
| --- | --- |
| `case` | `case_number`, `case_num`, `image_id`; the row number without such a column |
| `seed` | `evaluation_seed`, `sd_seed`, `seed` |
| `guidance` | `evaluation_guidance`, `sd_guidance_scale`, `guidance` |

(Diffusion-MU-Attack, AdvUnlearn, Erased Stable Diffusion, I2P and UnlearnCanvas publish such
tables.)
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mu.utils.errors import InputError

CASES = ("case_number", "case_num", "image_id")
SEEDS = ("evaluation_seed", "sd_seed", "seed")
GUIDANCES = ("evaluation_guidance", "sd_guidance_scale", "guidance")
_SEED_LIMIT = 2**64


@dataclass(frozen=True)
class Prompt:
    """One row of a prompt file.

    Attributes:
        text: the prompt.
        case: case number of the row, as written in the file.
        seed: seed of the starting noise, in [0, 2^64); None without such a column.
        guidance: scale of classifier-free guidance; None without such a column.
        fields: the other columns by name, as text.
    """

    text: str
    case: str
    seed: int | None = None
    guidance: float | None = None
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def categories(self) -> tuple[str, ...]:
        """Values of the column `categories` (I2P: `violence, self-harm`); empty without it."""
        return tuple(
            word.strip() for word in self.fields.get("categories", "").split(",") if word.strip()
        )


def read_prompts(
    path: Path | str, texts: Path | str | None = None, columns: Sequence[str] = ()
) -> list[Prompt]:
    """Prompts of a file.

    Args:
        path: a CSV file with a header, in UTF-8 with or without a byte order mark; or a `.txt` file
            with a prompt a line.
        texts: a CSV file with the texts of the prompts, for tables published without them; joined
            on the case number.
        columns: further columns that the file must have.

    Raises:
        InputError: when a file or a column is missing, a line is cut off, a number is invalid, or
            there are no prompts.
    """
    path = Path(path)
    if path.suffix == ".txt":
        lines = [line.strip() for line in _text(path).split("\n")]
        prompts = [
            Prompt(line, str(index)) for index, line in enumerate(line for line in lines if line)
        ]
        _check(path, [], columns)
    else:
        header, rows = read_table(path)
        _check(path, header, columns)
        prompts = (
            _joined(path, header, rows, Path(texts))
            if texts is not None
            else _prompts(path, header, rows)
        )
    if not prompts:
        raise InputError(f"{path} has no prompts.")
    return prompts


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows of a CSV file, without columns that have no name.

    Raises:
        InputError: when the file is missing, not UTF-8, or a line has more or fewer entries than
            the header.
    """
    try:
        lines = list(csv.reader(io.StringIO(_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file ({error}); it may be cut off.") from error
    if not lines:
        raise InputError(f"{path} is empty; a file of prompts begins with the columns' names.")
    header = [name.strip() for name in lines[0]]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} has the column {twice!r} twice.")
    rows = []
    for row, line in enumerate(lines[1:], 1):
        if not line:
            continue
        if len(line) != len(header):
            raise InputError(
                f"row {row} of {path} has {len(line)} entries, but there are {len(header)} "
                "columns; it may be cut off."
            )
        rows.append({name: entry for name, entry in zip(header, line, strict=True) if name})
    return [name for name in header if name], rows


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"there is no file of prompts at {path}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not in UTF-8 ({error}).") from error


def _check(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]!r}; it has {', '.join(header) or 'none'}."
        )


def _prompts(path: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> list[Prompt]:
    if "prompt" not in header:
        raise InputError(
            f"{path} has no column `prompt`; it has {', '.join(header) or 'none'}. (Some tables "
            "are published without texts: give the file of texts as texts; it is joined on the "
            "case number.)"
        )
    case, seed, guidance = (
        next((name for name in names if name in header), None)
        for names in (CASES, SEEDS, GUIDANCES)
    )
    reserved = {"prompt", case, seed, guidance}
    return [
        Prompt(
            row["prompt"],
            row[case].strip() if case else str(index),
            None if seed is None else _seed(row[seed], path, index, seed),
            None if guidance is None else _number(row[guidance], path, index, guidance),
            {name: value for name, value in row.items() if name not in reserved},
        )
        for index, row in enumerate(rows)
    ]


def _joined(
    path: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]], texts: Path
) -> list[Prompt]:
    """Prompts of rows, with the text of each case from a second file."""
    text_header, text_rows = read_table(texts)
    case_column = next((name for name in CASES if name in header), None)
    text_case_column = next((name for name in CASES if name in text_header), None)
    if case_column is None or text_case_column is None or "prompt" not in text_header:
        incomplete = path if case_column is None else texts
        missing = " or ".join(CASES) if None in (case_column, text_case_column) else "`prompt`"
        raise InputError(
            f"{path} and {texts} are joined on a case number, and {incomplete} lacks {missing}."
        )
    text = {row[text_case_column].strip(): row["prompt"] for row in text_rows}
    unmatched = next(
        (row[case_column] for row in rows if row[case_column].strip() not in text), None
    )
    if unmatched is not None:
        raise InputError(f"{texts} has no prompt of case {unmatched}, which {path} asks for.")
    return _prompts(
        path,
        [*header, "prompt"],
        [{**row, "prompt": text[row[case_column].strip()]} for row in rows],
    )


def _seed(text: str, path: Path, row: int, column: str) -> int:
    # a float holds 53 bits; tables that went through pandas write 7.0
    exact = text.strip().isascii() and text.strip().isdigit()
    value = _number(text, path, row, column)
    seed = int(text) if exact else int(value)
    if (not exact and seed != value) or not 0 <= seed < _SEED_LIMIT:
        raise InputError(
            f"row {row + 1} of {path} has {column} = {text!r}; a seed is a whole number from 0 to "
            "2^64 − 1."
        )
    return seed


def _number(text: str, path: Path, row: int, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value or value in (float("inf"), float("-inf")):
        raise InputError(f"row {row + 1} of {path} has {column} = {text!r}, which is not a number.")
    return value
