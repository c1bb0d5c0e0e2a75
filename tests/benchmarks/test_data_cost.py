"""Start, throughput and memory of data that outgrow memory.

Processor time, because a busy machine makes wall time mean little. Images: against torchvision's
ImageFolder, at least 0.9 of its images a second; a second start reads no image. Texts: a second
start of 20,000 rows takes at most half a second (200,000 rows 5 s) and no memory a row.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from mu.data import Retain
from tasks import ByClass, ImageFolder
from tests.benchmarks.paired import Mark, paired
from tests.support.doubles_text import NAMES, TOWNS, folder

pytestmark = pytest.mark.slow
FILES = 1_000
BATCH = 32
STEPS = 20
ROWS = 20_000
START = """
import json, os, sys, time
import pyarrow, torch, transformers
from mu.backbones.language.tokenizer import load_tokenizer
from mu.data import Retain
from tasks import ByValue, QuestionAnswer
load_tokenizer(sys.argv[2])
def resident():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
before, begin = resident(), time.process_time()
task = QuestionAnswer(
    path=sys.argv[1], selector=ByValue("a0"), by="author", tokenizer=sys.argv[2], curves=[]
)
task.setup()
next(iter(task.plan_loader(Retain(), 0)))
print(json.dumps([time.process_time() - begin, resident() - before]))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs of 224 pixels, by class."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for part, count in (("train", FILES), ("test", 20)):
        for position in range(count):
            path = root / part / f"class{position % 10}"
            path.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
            coarse.resize((256, 256)).save(path / f"{position}.jpg", quality=80)
    return root


def task_of(images: Path) -> ImageFolder:
    return ImageFolder(
        str(images), ByClass(0), size=224, in_memory=False, batch_size=BATCH, curves=[]
    )


def marked(batches: Iterator[Any], mark: Mark) -> None:
    """Take the batches, with a mark before the first and behind each."""
    for _ in range(STEPS):
        mark()
        next(batches)
    mark()


def test_images_are_decoded_as_fast_as_by_torchvision(
    images: Path, measured: Any, say: Any
) -> None:
    """Fails when a file is opened twice, or a batch is copied once more than it needs to be."""
    from torchvision import datasets, transforms

    task = task_of(images)
    task.setup()
    crop = [transforms.RandomCrop(224, 4), transforms.RandomHorizontalFlip()]
    resized = transforms.Compose([transforms.Resize((224, 224)), *crop, transforms.ToTensor()])
    theirs = datasets.ImageFolder(str(images / "train"), resized)

    def ours(mark: Mark) -> None:
        marked(iter(task.plan_loader(Retain(), 0)), mark)

    def torchvision(mark: Mark) -> None:
        marked(iter(DataLoader(theirs, BATCH, shuffle=True)), mark)

    pair = measured(lambda: paired(torchvision, ours))
    say(f"{pair.ratio:.2f} of torchvision's images a second ({pair.spread()})", ratio=pair.ratio)
    assert pair.ratio >= 0.9


def test_a_second_start_reads_no_image(images: Path, measured: Any, say: Any) -> None:
    """44,000 images in 10 s; fails when a start decodes, or compares names one by one."""
    task_of(images).setup()

    def start() -> float:
        begin = time.process_time()
        task_of(images).setup()
        return time.process_time() - begin

    seconds = measured(lambda: min(start() for _ in range(3)))
    say(f"{1e6 * seconds / FILES:.0f} microseconds an image", seconds=seconds)
    assert seconds * 44_000 / FILES <= 10


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory as Linux counts it")
def test_a_second_start_of_texts_takes_no_memory_a_row(
    tmp_path: Path, measured: Any, say: Any
) -> None:
    """Fails when rows are parsed, tokenised or kept as objects at each start."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {
            "question": f"where does {NAMES[n % len(NAMES)]} number {n} live ?",
            "answer": f"in {TOWNS[n % len(TOWNS)]} and so on , " * 8 + str(n),
            "author": f"a{n % 50}",
        }
        for n in range(ROWS)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))

    def start() -> tuple[float, float]:
        answer = subprocess.run(
            [sys.executable, "-c", START, str(path), folder()],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "MU_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        )
        seconds, megabytes = json.loads(answer.stdout.splitlines()[-1])
        return seconds, megabytes

    first = start()
    seconds, megabytes = measured(start)
    say(
        f"{seconds:.2f} s and {megabytes:.0f} MB after {first[0]:.1f} s and {first[1]:.0f} MB",
        seconds=seconds,
        megabytes=megabytes,
    )
    assert seconds <= 5 * ROWS / 200_000 and megabytes < 20
