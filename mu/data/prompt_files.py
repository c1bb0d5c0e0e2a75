"""Prompt files: published CSV tables, and text files with a prompt a line.

Column names differ between tables; a prompt has the same attributes for all of them:

| attribute | column, the first that exists |
| --- | --- |
| `case` | `case_number`, `case_num`, `image_id`; the row number without such a column |
| `seed` | `evaluation_seed`, `sd_seed`, `seed` |
| `guidance_scale` | `evaluation_guidance`, `sd_guidance_scale`, `guidance_scale`, `guidance` |

(Diffusion-MU-Attack, AdvUnlearn, Erased Stable Diffusion, I2P and UnlearnCanvas publish such
tables.) Tasks and suites read them alike. Texts are normalised to composed Unicode (NFC). A whole
number may be written as data frames write it, `3016.0`; an empty entry is no seed or guidance.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from unicodedata import normalize

from mu.utils.errors import InputError
from mu.utils.shipped_files import find_config

CASES = ("case_number", "case_num", "image_id")
SEEDS = ("evaluation_seed", "sd_seed", "seed")
GUIDANCES = ("evaluation_guidance", "sd_guidance_scale", "guidance_scale", "guidance")
SEED_LIMIT = 2**64
"""Seeds lie below, as those of torch's generators."""


@dataclass(frozen=True)
class Prompt:
    """One row of a prompt file.

    Attributes:
        text: the prompt.
        case: case number of the row, as written in the file, `3.0` as `3`.
        seed: seed of the starting noise, in [0, 2^64); None without such a column or entry.
        guidance_scale: scale of classifier-free guidance; None without such a column or entry.
        fields: the other columns by name, as text.
    """

    text: str
    case: str
    seed: int | None = None
    guidance_scale: float | None = None
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
            with a prompt a line. Rows without any entry are skipped.
        texts: a CSV file with the texts of the prompts, for tables published without them; joined
            on the case number.
        columns: further columns that the file must have.

    Raises:
        InputError: when a file or a column is missing, a line is cut off, a number is invalid, or
            there are no prompts.
    """
    path = find_config(path)
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
    """Column names and rows of a CSV file, without empty rows and columns that have no name.

    Raises:
        InputError: when the file is missing, not UTF-8, or a line has more or fewer entries than
            the header.
    """
    try:
        lines = list(csv.reader(io.StringIO(_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file ({error}); it may be cut off.") from error
    lines = [line for line in lines if any(entry.strip() for entry in line)]
    if not lines:
        raise InputError(f"{path} is empty; a file of prompts begins with the columns' names.")
    header = [name.strip() for name in lines[0]]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} has the column {twice!r} twice.")
    rows = []
    for row, line in enumerate(lines[1:], 1):
        if len(line) != len(header):
            raise InputError(
                f"row {row} of {path} has {len(line)} entries, but there are {len(header)} "
                "columns; it may be cut off."
            )
        rows.append({name: entry for name, entry in zip(header, line, strict=True) if name})
    return [name for name in header if name], rows


def _text(path: Path) -> str:
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"there is no file of prompts at {path}.")
    try:
        text = normalize("NFC", path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not in UTF-8 ({error}).") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"line {line} of {path} has a null byte, which no prompt has; remove it.")
    return text


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
    case, seed, scale = (
        next((name for name in names if name in header), None)
        for names in (CASES, SEEDS, GUIDANCES)
    )
    reserved = {"prompt", case, seed, scale}
    return [
        Prompt(
            row["prompt"],
            _case(row[case]) if case else str(index),
            None if seed is None else _seed(row[seed], path, index, seed),
            None if scale is None else _number(row[scale], path, index, scale),
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
    text = {_case(row[text_case_column]): row["prompt"] for row in text_rows}
    unmatched = next(
        (row[case_column] for row in rows if _case(row[case_column]) not in text), None
    )
    if unmatched is not None:
        raise InputError(f"{texts} has no prompt of case {unmatched}, which {path} asks for.")
    return _prompts(
        path,
        [*header, "prompt"],
        [{**row, "prompt": text[_case(row[case_column])]} for row in rows],
    )


def _case(text: str) -> str:
    """Case number without the decimals of a float: `3.0` as `3`."""
    return re.sub(r"(?<=\d)\.0+$", "", text.strip())


def _seed(text: str, path: Path, row: int, column: str) -> int | None:
    """Seed of an entry, exact for all digits, which a float is not; None for an empty entry."""
    if not text.strip():
        return None
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise InputError(f"row {row + 1} of {path} has {column} = {text!r}, which is not a number.")
    # an exponent of many digits would make an integer of as many
    if not 0 <= value < SEED_LIMIT or value != value.to_integral_value():
        raise InputError(
            f"row {row + 1} of {path} has {column} = {text!r}; a seed is a whole number from 0 to "
            "2^64 − 1."
        )
    return int(value)


def _number(text: str, path: Path, row: int, column: str) -> float | None:
    """Finite number of an entry; None for an empty entry."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value != value or value in (float("inf"), float("-inf")):
        raise InputError(f"row {row + 1} of {path} has {column} = {text!r}, which is not a number.")
    return value
