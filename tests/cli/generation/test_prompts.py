"""Prompts come from words and from files, each with its seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.cli.generation.prompts import prompt_rows
from mu.utils.errors import InputError


def test_words_are_prompts_with_consecutive_seeds() -> None:
    rows = prompt_rows(["a red circle", "a star"], seed=7, repeats=2)
    assert [(row.text, row.seed) for row in rows] == [
        ("a red circle", 7),
        ("a red circle", 8),
        ("a star", 9),
        ("a star", 10),
    ]


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.txt", "one\n\ntwo\n", ["one", "two"]),
        ("a.csv", "prompt,seed\none,5\ntwo,6\n", ["one", "two"]),
        ("a.csv", "question,answer\none,1\n", ["one"]),
        ("a.jsonl", '{"question": "one", "answer": "1"}\n', ["one"]),
        ("a.json", '[{"prompt": "one"}, {"prompt": "two"}]', ["one", "two"]),
    ],
)
def test_a_file_gives_a_prompt_for_each_row(
    name: str, content: str, texts: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    rows = prompt_rows([str(tmp_path / name)], seed=0, repeats=1)
    assert [row.text for row in rows] == texts


def test_a_file_gives_seeds_guidance_and_true_answers(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,evaluation_seed,guidance,answer\none,5,2.5,1\n")
    (row,) = prompt_rows([str(tmp_path / "a.csv")], seed=0, repeats=1)
    assert (row.seed, row.guidance_scale, row.truth) == (5, 2.5, "1")


def test_a_shipped_file_of_prompts_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(prompt_rows(["configs/prompts/church.csv"], seed=0, repeats=1)) > 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["missing.csv"], "there is no file"),
        ([" "], "a prompt is empty"),
        (["prompts.md"], r"a file of prompts ends in \.csv"),
        (["empty.jsonl"], "has no rows"),
        (["other.jsonl"], "have neither prompt nor question; they have text"),
    ],
)
def test_prompts_that_cannot_be_read_are_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.md").write_text("one")
    Path("empty.jsonl").write_text("")
    Path("other.jsonl").write_text('{"text": "one"}')
    with pytest.raises(InputError, match=sentence):
        prompt_rows(words, seed=0, repeats=1)
