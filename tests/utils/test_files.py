"""Files are replaced as a whole, and read strictly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mu.utils.errors import InputError
from mu.utils.files import read_json, read_json_lines, remove_stale, replacing, write_text


def dead_process() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    """Fails when a kill leaves a temporary file for ever, or when that of another run is taken."""
    process = dead_process()
    stale = [tmp_path / f".{name}.{process}.tmp" for name in ("a.json", "b.json")]
    alive = tmp_path / f".a.json.{os.getppid()}.tmp"
    for file in (*stale, alive, tmp_path / ".a.json.mine.tmp"):
        file.touch()
    write_text(tmp_path / "a.json", "{}")
    assert not stale[0].exists() and stale[1].exists() and alive.exists()
    remove_stale(tmp_path)
    assert not stale[1].exists() and alive.exists() and (tmp_path / ".a.json.mine.tmp").exists()


@pytest.mark.parametrize("handled", [False, True])
def test_a_signal_leaves_no_temporary_file(handled: bool, tmp_path: Path) -> None:
    """Fails when SIGTERM kills before the removal, or overrules a handler of the program."""
    handler = "signal.signal(signal.SIGTERM, lambda *_: None)" if handled else ""
    code = f"""
import os, signal
from pathlib import Path
from mu.utils.files import replacing
{handler}
with replacing(Path({str(tmp_path)!r}) / "a.json") as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGTERM)
    temporary.write_text("whole")
assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL or not {handler!r}
"""
    process = subprocess.run([sys.executable, "-c", code], check=False)
    if handled:
        assert process.returncode == 0
        assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
        assert (tmp_path / "a.json").read_text() == "whole"
    else:
        assert process.returncode == -signal.SIGTERM
        assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """Fails when an error inside the block leaves half a file."""
    write_text(tmp_path / "a", "old")
    with pytest.raises(ValueError), replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
        raise ValueError
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": NaN}', "NaN is no number"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": ', "cut off"),
    ],
)
def test_json_is_read_strictly(tmp_path: Path, text: str, words: str) -> None:
    """Fails when Python's reader lets through what JSON has not."""
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=words):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text(f'{{"b": 1}}\n{text}\n')
    with pytest.raises(InputError, match="line 2 of"):
        read_json_lines(tmp_path / "a.jsonl")


def test_pipes_folders_and_loops_are_no_files(tmp_path: Path) -> None:
    """Fails when a reader waits for a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    names = {"pipe": "pipe", ".": "folder", "loop": "link", "x" * 5000: "too long", "no": "no file"}
    for name, words in names.items():
        with pytest.raises(InputError, match=words):
            read_json(tmp_path / name)
