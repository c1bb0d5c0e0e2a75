"""Index of image files: each is read once, and again when it changes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mu.utils.cache import cache_folder
from mu.utils.errors import InputError
from tasks.image_folders import image_folder_source
from tasks.image_index import pixel_sums
from tasks.image_lists import ImageList


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the files that are read, and a cache folder of the test's own."""
    monkeypatch.setenv("MU_CACHE", str(tmp_path / "cache"))
    names: list[str] = []
    read = ImageList.read

    def counted(self: ImageList, position: int) -> bytes:
        names.append(self.path(position))
        return read(self, position)

    monkeypatch.setattr(ImageList, "read", counted)
    return names


def write_folder(root: Path, count: int = 4) -> Path:
    for name in ("cat", "dog"):
        for part in ("train", "test"):
            (root / part / name).mkdir(parents=True)
            for image in range(count):
                level = 10 * image + 100 * (name == "dog")
                Image.new("RGB", (4, 4), (level, 0, 0)).save(root / part / name / f"{image}.png")
    time.sleep(0.05)  # longer than a tick of the file system's clock
    return root


def source(root: Path):
    return image_folder_source(root, 4, in_memory=False)


def test_the_second_start_reads_no_file(tmp_path: Path, reads: list[str]) -> None:
    root = write_folder(tmp_path / "data")
    first = source(root)
    assert len(reads) == 16
    second = source(root)
    assert len(reads) == 16
    assert second.name == first.name and second.mean == first.mean


def test_only_what_changed_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    """Mutations: a file is known by its name, or by its size; removed files leave their sums."""
    root = write_folder(tmp_path / "data")
    names = [source(root).name]
    del reads[:]
    changed = root / "train" / "cat" / "0.png"
    before = changed.stat()
    content = changed.read_bytes()
    time.sleep(0.05)
    changed.write_bytes(content[:-1] + b"\0")  # one byte of the end marker's check sum
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed.stat().st_size == before.st_size
    time.sleep(0.05)
    names.append(source(root).name)
    assert reads == [str(changed)]
    (root / "train" / "dog" / "3.png").unlink()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(root / "train" / "cat" / "new.png")
    time.sleep(0.05)
    del reads[:]
    last = source(root)
    assert reads == [str(root / "train" / "cat" / "new.png")]
    assert len({*names, last.name}) == 3
    assert last.mean == image_folder_source(root, 4, in_memory=True).mean
    assert last.name == image_folder_source(root, 4, in_memory=True).name


def test_a_file_written_just_before_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    """Mutation: a second change within a tick of the clock goes unseen."""
    root = write_folder(tmp_path / "data")
    fresh = root / "train" / "cat" / "fresh.png"
    Image.new("RGB", (4, 4)).save(fresh)
    now = time.time_ns()
    while time.time_ns() // 1_000_000_000 == now // 1_000_000_000:
        time.sleep(0.01)
    os.utime(fresh, ns=(now, time.time_ns() // 1_000_000_000 * 1_000_000_000))
    source(root)
    del reads[:]
    source(root)
    assert reads in ([], [str(fresh)])


def test_a_cut_off_index_is_made_again(tmp_path: Path, reads: list[str]) -> None:
    root = write_folder(tmp_path / "data")
    name = source(root).name
    (index,) = cache_folder("images").glob("*.npz")
    index.write_bytes(index.read_bytes()[:-100])
    assert source(root).name == name and len(reads) == 32
    assert source(root).name == name and len(reads) == 32


def test_a_killed_start_loses_what_it_read_last(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutation: the index is written at the end alone."""
    root = write_folder(tmp_path / "data", count=40)
    monkeypatch.setattr("tasks.image_index._SECONDS", 0)
    stop = threading.Event()
    read = ImageList.read

    def killed(self: ImageList, position: int) -> bytes:
        if len(reads) >= 20:
            stop.set()
            raise KeyboardInterrupt
        return read(self, position)

    monkeypatch.setattr(ImageList, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        source(root)
    assert stop.is_set()
    monkeypatch.setattr(ImageList, "read", read)
    source(root)
    assert 160 <= len(reads) <= 162


@pytest.mark.slow
def test_processes_that_start_together_read_each_file_once(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", count=30)
    program = (
        "import sys; from tasks.image_lists import ImageList as L; from tasks import image_folders;"
        "import tasks.image_index as x; n = [0]; read = L.read\n"
        "def counted(self, position):\n n[0] += 1; return read(self, position)\n"
        "L.read = counted\n"
        "name = image_folders.image_folder_source(sys.argv[1], 4, in_memory=False).name\n"
        "print(n[0], name)"
    )
    environment = {**os.environ, "MU_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(root)],
            env=environment,
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate()[0].split() for process in processes]
    assert sorted(int(count) for count, _ in outputs) == [0, 120]
    assert len({name for _, name in outputs}) == 1


def test_a_cache_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start without a cache is slow, and still a start."""
    root = write_folder(tmp_path / "data")
    name = source(root).name
    (tmp_path / "file").touch()
    monkeypatch.setenv("MU_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match=r"read again at the next start: the cache .* MU_CACHE"):
        assert source(root).name == name


def test_a_broken_image_is_refused_before_the_fit(tmp_path: Path, reads: list[str]) -> None:
    root = write_folder(tmp_path / "data")
    (root / "test" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"test/cat/0.png cannot be read"):
        source(root)


def test_sums_are_those_of_the_levels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exact = pixels.astype(np.int64)
    expected = [*exact.sum((0, 1)), *(exact**2).sum((0, 1))]
    assert pixel_sums(pixels).tolist() == expected
