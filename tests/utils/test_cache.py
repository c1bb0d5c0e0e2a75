"""Cache folder: where it is, who may write it, and files known by their times."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mu.utils import cache
from mu.utils.errors import InputError


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MU_CACHE": "/big/mu", "XDG_CACHE_HOME": "/x"}, "/big/mu/texts"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/mu/texts"),
        ({"HOME": "/home/ada"}, "/home/ada/.cache/mu/texts"),
    ],
)
def test_the_environment_names_the_folder(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MU_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(cache.cache_folder("texts")) == expected


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    entry = tmp_path / "entry"
    program = (
        "import sys, os, pathlib; from mu.utils.cache import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'works'):\n"
        " print('locked', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(entry)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    process.kill()
    process.wait()
    with cache.locked(entry, "works"):
        assert entry.parent.is_dir()


def test_a_full_disc_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"the cache .* \(No space left.*MU_CACHE"),
        cache.writable(tmp_path / "entry"),
    ):
        raise OSError(28, "No space left on device")


def test_a_file_is_hashed_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutations: the time of change is ignored; a folder is known by its own time."""
    monkeypatch.setenv("MU_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    file = folder / "a.txt"
    hashes = set()
    for text in ("one", "two"):
        file.write_text(text)
        time.sleep(0.05)
        first = cache.content_hash(folder)
        assert cache.content_hash(folder) == first
        hashes |= {first, cache.content_hash(file)}
    assert len(hashes) == 4
    monkeypatch.setattr("hashlib.file_digest", None)
    assert cache.content_hash(file) in hashes  # not read again
    with pytest.raises(InputError, match=r"b.txt cannot be read \(No such file"):
        cache.content_hash(folder / "b.txt")
