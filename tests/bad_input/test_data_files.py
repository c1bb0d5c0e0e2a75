"""Rows, texts, prompts, arrays and image folders that cannot be read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mu.data.prompt_files import read_prompts
from mu.data.split import Split
from tasks.image_folders import image_folder_source
from tasks.readers import npz_source
from tasks.text.files import read_rows, read_texts
from tests.bad_input.conftest import refused_by, table

ROW = {"question": "who ?", "answer": "Ada."}


def lines(*rows: Any) -> bytes:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()


ROWS = [
    ("empty", b"", "no rows"),
    ("blank lines", b"\n\n \n", "no rows"),
    ("empty list", b"[]", "no rows"),
    ("not JSON", lines(ROW, "who ?"), "line 2"),
    ("cut line", lines(ROW, '{"question": "w'), "line 2"),
    ("cut list", b'[{"question": "a", "answer": "b"}', "not JSON"),
    ("one object twice", lines(ROW)[:-1] + b', "answer": "c"}', "stands twice"),
    ("NaN", lines(ROW, '{"question": "a", "answer": NaN}'), "NaN"),
    ("infinity", lines('{"question": "a", "answer": "b", "x": Infinity}'), "Infinity"),
    ("numbers", lines(3, 4), "row 1"),
    ("lists", lines(["a"]), "row 1"),
    ("texts", lines('"a"'), "row 1"),
    ("null", lines("null"), "row 1"),
    ("no answer", lines(ROW, {"question": "a"}), "'answer'"),
    ("no question", lines({"answer": "a"}), "'question'"),
    ("answer null", lines({**ROW, "answer": None}), "answer"),
    ("answer empty", lines({**ROW, "answer": ""}), "answer"),
    ("answer blank", lines({**ROW, "answer": "  "}), "answer"),
    ("answer true", lines({**ROW, "answer": True}), "answer"),
    ("answer a mapping", lines({**ROW, "answer": {"a": 1}}), "answer"),
    ("question a number list", lines({**ROW, "question": [1]}), "question"),
    ("latin", "{'question': 'é'}".encode("latin-1"), "UTF-8"),
    ("binary", bytes(range(256)), "UTF-8"),
    ("deep", b"[" * 100_000, "deep"),
    ("other mark", lines(ROW).decode().encode("utf-16"), "UTF-8"),
]


@pytest.mark.parametrize(("content", "words"), table(ROWS, fast=25))
def test_rows_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    refused_by(lambda: read_rows(tmp_path / "rows.jsonl"), words)


PROMPTS = [
    ("empty", "csv", b"", "prompts"),
    ("header alone", "csv", b"prompt\n", "prompts"),
    ("no column", "csv", b"text\na cat\n", "prompt"),
    ("seed text", "csv", b"prompt,seed\na cat,x\n", "seed"),
    ("seed part", "csv", b"prompt,seed\na cat,1.5\n", "seed"),
    ("seed negative", "csv", b"prompt,seed\na cat,-1\n", "seed"),
    ("seed huge", "csv", b"prompt,seed\na cat,99999999999999999999999\n", "seed"),
    ("seed nan", "csv", b"prompt,seed\na cat,nan\n", "seed"),
    ("guidance text", "csv", b"prompt,guidance\na cat,x\n", "guidance"),
    ("guidance nan", "csv", b"prompt,guidance\na cat,nan\n", "guidance"),
    ("guidance inf", "csv", b"prompt,guidance\na cat,inf\n", "guidance"),
    ("short row", "csv", b"prompt,seed,x\na cat\n", "prompt"),
    ("long row", "csv", b"prompt,seed\na cat,1,2,3\n", "csv"),
    ("latin", "csv", "prompt\né\n".encode("latin-1"), "UTF-8"),
    ("column twice", "csv", b"prompt,prompt\na,b\n", "prompt"),
    ("text empty", "txt", b"", "prompts"),
    ("text blank", "txt", b"\n\n  \n", "prompts"),
    ("text latin", "txt", "é\n".encode("latin-1"), "UTF-8"),
]


@pytest.mark.parametrize(("suffix", "content", "words"), table(PROMPTS, fast=19))
def test_prompts_are_refused(tmp_path: Path, suffix: str, content: bytes, words: str) -> None:
    (tmp_path / f"prompts.{suffix}").write_bytes(content)
    refused_by(lambda: read_prompts(tmp_path / f"prompts.{suffix}"), words)


PATHS: list[tuple[str, Callable[[Path], Any]]] = [
    ("missing", lambda path: None),
    ("folder", Path.mkdir),
    ("pipe", os.mkfifo),
    ("loop", lambda path: path.symlink_to(path.name)),
]
READERS: list[tuple[str, Callable[[Path], Any]]] = [
    ("rows.jsonl", read_rows),
    ("prompts.csv", read_prompts),
    ("prompts.txt", read_prompts),
    ("data.npz", npz_source),
    ("split.json", Split.load),
    ("texts.txt", lambda path: read_texts([str(path)])),
    ("texts.jsonl", lambda path: read_texts([str(path)])),
]
UNREADABLE = [
    (f"{name} as {what}", name, make, read) for name, read in READERS for what, make in PATHS
]


@pytest.mark.parametrize(("name", "make", "read"), table(UNREADABLE, fast=40))
def test_what_is_no_file_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], Any], read: Callable[[Path], Any]
) -> None:
    make(tmp_path / name)
    refused_by(lambda: read(tmp_path / name), name[-30:])


def arrays(**changes: Any) -> dict[str, Any]:
    """Arrays of a small data set, some of them changed or left out."""
    generator = np.random.default_rng(0)
    content = {
        "train_images": generator.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8),
        "train_labels": np.arange(20) % 2,
        "test_images": generator.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8),
        "test_labels": np.arange(6) % 2,
    }
    return {name: value for name, value in {**content, **changes}.items() if value is not None}


def test_the_arrays_themselves_are_accepted(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **arrays())
    npz_source(tmp_path / "data.npz")


ARRAYS = [
    *((f"no {name}", {name: None}, name) for name in arrays()),
    ("labels short", {"train_labels": np.zeros(3, int)}, "label"),
    ("labels of text", {"train_labels": np.array(["a"] * 20)}, "label"),
    ("labels with parts", {"train_labels": np.full(20, 0.5)}, "label"),
    ("labels NaN", {"train_labels": np.full(20, np.nan)}, "label"),
    ("labels negative", {"train_labels": np.full(20, -1)}, "label"),
    ("labels in two dimensions", {"train_labels": np.zeros((20, 2), int)}, "label"),
    ("labels as objects", {"train_labels": np.array([{}] * 20, object)}, "data.npz"),
    ("images flat", {"train_images": np.zeros((20, 192), np.uint8)}, "image"),
    ("images of text", {"train_images": np.array(["a"] * 20)}, "image"),
    ("images NaN", {"train_images": np.full((20, 8, 8, 3), np.nan)}, "image"),
    ("no images", {"train_images": np.zeros((0, 8, 8, 3), np.uint8)}, ""),
    ("images of seven channels", {"train_images": np.zeros((20, 8, 8, 7), np.uint8)}, "image"),
    ("other size", {"test_images": np.zeros((6, 9, 9, 3), np.uint8)}, ""),
]


@pytest.mark.parametrize(("changes", "words"), table(ARRAYS, fast=19))
def test_arrays_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "data.npz", **arrays(**changes))
    refused_by(lambda: npz_source(tmp_path / "data.npz"), words)


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(file)


SECOND = {"a/2.png": picture, "b/2.png": picture}
FOLDERS: list[tuple[str, dict[str, Any], str]] = [
    ("empty folder", {}, ""),
    ("no pictures", {"a/1.txt": b"x", "b/1.txt": b"x"}, ""),
    ("broken picture", {"a/1.png": b"x", "b/1.png": picture, **SECOND}, "1.png"),
    ("empty picture", {"a/1.png": b"", "b/1.png": picture, **SECOND}, "1.png"),
    ("loop", {"a/1.png": lambda file: file.symlink_to("1.png"), "b/1.png": picture}, ""),
    ("pipe", {"a/1.png": os.mkfifo, "b/1.png": picture}, ""),
]


@pytest.mark.parametrize(("files", "words"), table(FOLDERS, fast=7))
def test_image_folders_are_refused(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            (root / name).write_bytes(content)
        else:
            content(root / name)
    refused_by(lambda: image_folder_source(root, (8, 8), 0.5), words)
