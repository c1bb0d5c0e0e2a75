"""Prompts of `mu generate`, from words of the command line and from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mu.data.prompt_files import Prompt, read_prompts, read_table
from mu.utils.errors import InputError
from mu.utils.files import read_json_lines
from mu.utils.shipped_files import find_config

FILE_SUFFIXES = (".csv", ".json", ".jsonl", ".txt")
"""Suffixes of files of prompts."""
_QUESTION_COLUMNS = ("prompt", "question")
_TRUTH_COLUMNS = ("answer", "truth")


@dataclass(frozen=True)
class PromptRow:
    """One prompt with its seed.

    Attributes:
        text: the prompt, the question, or the number of a class.
        seed: seed of the image or the answer.
        guidance_scale: of the prompt file; None where it has none.
        truth: true answer, of a file of questions; empty where it has none.
    """

    text: str
    seed: int
    guidance_scale: float | None = None
    truth: str = ""


def prompt_rows(words: Sequence[str], seed: int, repeats: int) -> list[PromptRow]:
    """Rows of the prompts, each `repeats` times with consecutive seeds.

    A prompt of a file that has a seed of its own begins with that.

    Args:
        words: prompts, and files of prompts.
        seed: seed of the first row.
        repeats: images or answers of a prompt, at least 1.

    Raises:
        InputError: a file cannot be read, or there are no prompts.
    """
    if repeats < 1:
        raise InputError(f"{repeats} outputs of a prompt are none; draw at least 1.")
    prompts = [prompt for word in words for prompt in _prompts(word)]
    first = [
        seed + index * repeats if prompt.seed is None else prompt.seed
        for index, prompt in enumerate(prompts)
    ]
    return [
        PromptRow(prompt.text, first[index] + repeat, prompt.guidance_scale, _truth(prompt))
        for index, prompt in enumerate(prompts)
        for repeat in range(repeats)
    ]


def _prompts(word: str) -> list[Prompt]:
    """Prompts of a file, or the word itself."""
    if not word.strip():
        raise InputError("a prompt is empty; give a text, or a file of prompts.")
    path = find_config(word)
    if not word.endswith(FILE_SUFFIXES):
        return _unknown_file(word) if _is_file(path) else [Prompt(word, "")]
    if path.suffix in (".json", ".jsonl"):
        return _json_prompts(path)
    if path.suffix == ".txt" or not path.is_file():
        return read_prompts(path)
    header, rows = read_table(path)
    if "prompt" in header or "question" not in header:
        return read_prompts(path)
    return [Prompt(row["question"], "", fields=row) for row in rows]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a prompt may be longer than a path
        return False


def _unknown_file(word: str) -> list[Prompt]:
    raise InputError(
        f"{word} is a file, and a file of prompts ends in {', '.join(FILE_SUFFIXES)}; rename it."
    )


def _json_prompts(path: Path) -> list[Prompt]:
    """Prompts of the entry `prompt` or `question` of each row."""
    rows = read_json_lines(path)
    name = next((name for name in _QUESTION_COLUMNS if name in rows[0]), None)
    if name is None:
        raise InputError(
            f"the rows of {path} have neither prompt nor question; they have {', '.join(rows[0])}."
        )
    rows = read_json_lines(path, (name,))
    return [
        Prompt(str(row[name]), "", fields={key: str(entry) for key, entry in row.items()})
        for row in rows
    ]


def _truth(prompt: Prompt) -> str:
    return next((prompt.fields[name] for name in _TRUTH_COLUMNS if name in prompt.fields), "")
