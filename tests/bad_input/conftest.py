"""Refusals: one sentence that names the thing and the cure, exit code 2, nothing written, at once.

Tables of inputs are lists of `(name, input, words of the sentence)`. The first of each table are in
the fast cut, the others are slow.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mu.utils.errors import InputError
from tests.cli.conftest import FIT, Answer, Mu
from tests.cli.conftest import mu as mu

SECONDS = 10.0
"""Longest time of a refusal; ten times that where the machine is shared."""


def table(entries: Sequence[tuple[Any, ...]], fast: int = 6) -> Any:
    """Parameters of a table, all but some slow: every n-th is fast, so that all sorts are."""
    step = max(1, len(entries) // fast) if fast else len(entries) + 1
    return [
        pytest.param(
            *entry[1:], id=str(entry[0]), marks=() if index % step == 0 else (pytest.mark.slow,)
        )
        for index, entry in enumerate(entries)
    ]


def files_below(folder: Path) -> set[tuple[str, int]]:
    """Names and sizes of all files and folders."""
    return {
        (str(entry.relative_to(folder)), entry.lstat().st_size if entry.is_file() else 0)
        for entry in folder.rglob("*")
        if "__pycache__" not in entry.parts
    }


Refuse = Callable[..., str]


@pytest.fixture
def refuse(mu: Mu, tmp_path: Path) -> Refuse:
    """`refuse(words, *parts)`: the sentence of a refused command, which has some parts."""

    def check(words: Sequence[str], *parts: str) -> str:
        before = files_below(tmp_path)
        start = time.monotonic()
        answer: Answer = mu(*words)
        seconds = time.monotonic() - start
        assert answer.code == 2, (answer.code, answer.err[-2000:])
        sentence = answer.sentence
        check_sentence(sentence, *parts)
        assert files_below(tmp_path) == before, "a refusal writes nothing"
        assert seconds < 10 * SECONDS
        return sentence

    return check


def check_sentence(sentence: str, *parts: str) -> None:
    """Check the form of a refusal, and that it names the fault."""
    assert sentence.rstrip().endswith((".", "?", ".)")), sentence
    assert "\n" not in sentence and len(sentence) < 900, sentence
    for word in ("Traceback", "Parser key", "NoneType", "object at 0x"):
        assert word not in sentence, sentence
    assert [part for part in parts if part not in sentence] == [], sentence


def refused_by(function: Callable[[], Any], *parts: str) -> None:
    """Check that a function refuses its input in a good sentence."""
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        function()
    check_sentence(" ".join(str(error.value).split()), *parts)
    assert time.monotonic() - start < 10 * SECONDS


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch that was tested, in a folder of its own."""
    from mu.cli.main import main
    from tests.cli.conftest import CONFIGS, METHOD, SILENT, TASK

    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, text in {"task": TASK, "method": METHOD, "silent": SILENT}.items():
            (folder / f"{name}.yaml").write_text(text)
        suite = ("-c", str(CONFIGS / "suite" / "accuracy.yaml"))
        assert main([*FIT, "--run", "run", "--trainer.max_epochs", "1", *suite]) == 0
        assert main(["test", "--run", "run"]) == 0
    return folder / "run"


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """Copy of a finished run, `run` in the working directory."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"
