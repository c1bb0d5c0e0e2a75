"""Commands of a first hour, run as a new user runs them, with what they must and must not say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NOISE = (
    r"Traceback \(most recent call last\)",
    r"\bFutureWarning\b|\bDeprecationWarning\b|\bUserWarning\b",
    r"sync_dist",
    r"Epoch \d+/-2",
    r"Total FLOPs",
    r"(?i)litlogger|lightning\.ai|pip install lightning",
    r"1000 epochs|max_epochs=1000",
    r"site-packages/",
)
"""What no command says to a user, whatever its outcome."""

SECONDS = 1800
"""Time that a command may take before it counts as hanging."""


@dataclass(frozen=True)
class Answer:
    """Exit code and text of a command, standard output and standard error together."""

    code: int
    text: str


class Terminal:
    """Terminal of a user in a folder, who has installed `mu` and nothing else.

    Args:
        folder: working directory, empty at first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.transcript: list[str] = []

    def run(
        self, command: str, code: int = 0, says: Iterable[str] = (), never: Iterable[str] = ()
    ) -> Answer:
        """Run a command and check its answer.

        Args:
            command: as it is typed; its first word is `mu`.
            code: exit code that it must have.
            says: regular expressions that its text must match.
            never: regular expressions that its text must not match, beside NOISE.

        Raises:
            AssertionError: with the whole text of the command.
        """
        program, *words = shlex.split(command)
        assert program == "mu"
        # no terminal, no colours, and a width at which tables are not cut
        environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
        completed = subprocess.run(
            [sys.executable, "-m", "mu", *words],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
        text = completed.stdout
        self.transcript.append(f"$ {command}\n{text}")
        assert completed.returncode == code, (
            f"exit code {completed.returncode} of {command}\n{text}"
        )
        for pattern in says:
            assert re.search(pattern, text), f"{command} does not say {pattern!r}:\n{text}"
        for pattern in (*NOISE, *never):
            assert not re.search(pattern, text), f"{command} says {pattern!r}:\n{text}"
        if code == 2:
            assert_one_sentence(text)
        return Answer(completed.returncode, text)


def assert_one_sentence(text: str) -> None:
    """Check that a refusal is one line, which begins with the program's name and ends in a stop."""
    lines = [line for line in text.splitlines() if line.strip()]
    refusals = [line for line in lines if line.startswith("mu: ") and "warning" not in line]
    assert len(refusals) == 1, text
    assert refusals[0].rstrip().endswith((".", "?")), text
