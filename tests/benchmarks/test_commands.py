"""Processor time of `mu --help`, `mu list` and `mu show`: half a second at most, in a new process.

Measured as processor time, so that other work on the machine does not count; on an idle one it is
the time that one waits.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mu

pytestmark = pytest.mark.slow
SECONDS = 0.5
FILE = Path(mu.__file__).parent / "cli" / "main.py"


def best_of_three(cwd: Path | None, *words: str) -> tuple[float, str]:
    """Seconds of processor time, and what was answered."""
    seconds = []
    output = ""
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = subprocess.run(
            [sys.executable, str(FILE), *words],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert answer.returncode == 0, answer.stderr
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        output = answer.stdout
    return min(seconds), output


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["list"], ["list", "methods"], ["show", "SalUn"]],
    ids=" ".join,
)
def test_answers_at_once(words: list[str], measured: Any, say: Any) -> None:
    """Fails when one of these commands imports torch, or reads more sources than it needs."""
    seconds, _ = measured(lambda: best_of_three(None, *words))
    say(f"{seconds:.2f} s", seconds=seconds)
    assert seconds < SECONDS


def test_files_of_the_user_are_listed_at_once(tmp_path: Path, measured: Any, say: Any) -> None:
    """Fails when a folder full of scripts is parsed from end to end for the one method in it."""
    (tmp_path / "my_method.py").write_text(
        "from mu.methods import SSD\n\n\nclass Mine(SSD):\n    pass\n"
    )
    for index in range(200):
        (tmp_path / f"script{index}.py").write_text(
            "import os\n\n\n" + "def f(x):\n    return [x, x + 1]\n\n\n" * 200
        )
    seconds, output = measured(lambda: best_of_three(tmp_path, "list", "methods"))
    say(f"{seconds:.2f} s with 200 scripts in the folder", seconds=seconds)
    assert "my_method.Mine" in output
    assert seconds < SECONDS
