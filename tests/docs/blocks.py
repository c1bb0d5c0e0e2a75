"""Code blocks of pages, and their commands run one after the other as a reader would."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from mu.cli.main import main
from mu.utils.shipped_files import find_config
from tests.docs.conftest import ROOT

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)$")
FILE_NAME = re.compile(r"^# (?P<name>[\w/]+\.(?:py|yaml|yml|csv|jsonl|txt))\b")
MARK = re.compile(r"\b(?:download|downloads|GPU|GPUs|cluster|nodes)\b")
"""Words of a comment after which a command is not run, but its configuration is read."""
SHORTER_PYTHON = ((r"max_epochs=\d+", "max_epochs=1"), (r"max_steps=\d+", "max_steps=2"))


@dataclass(frozen=True)
class Block:
    """Fenced block of a page.

    Attributes:
        page: path of the page.
        line: number of the line with the fence.
        language: word behind the fence; a directive of MyST in braces.
        text: without the fences.
    """

    page: Path
    line: int
    language: str
    text: str

    @property
    def location(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """Command of a `console` block.

    Attributes:
        words: as a shell divides them.
        comment: behind `#`.
    """

    words: tuple[str, ...]
    comment: str

    @property
    def marked(self) -> bool:
        """Whether the comment says that the command needs a download, a GPU or a cluster."""
        return MARK.search(self.comment) is not None


def blocks(page: Path) -> list[Block]:
    """Fenced blocks of a page, in order; those inside a directive of colons too."""
    result = []
    start = 0
    language: str | None = None
    lines: list[str] = []
    for position, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if language is None and fence:
            start, language, lines = position, fence["language"].strip(), []
        elif fence and not fence["language"]:
            result.append(Block(page, start, language or "", "\n".join(lines) + "\n"))
            language = None
        else:
            lines.append(line)
    assert language is None, f"{page}:{start}: the block is not closed"
    return result


def commands(block: Block) -> list[Command]:
    """Commands behind `$` of a `console` block, continued lines joined; other lines are output."""
    joined = re.sub(r" *\\\n\s*", " ", block.text)
    result = []
    for line in joined.splitlines():
        if not line.startswith("$ "):
            continue
        text, comment = without_comment(line[2:])
        for command in shlex.join(shlex.split(text)).split(" '&&' "):
            result.append(Command(tuple(shlex.split(command)), comment))
    return result


def without_comment(line: str) -> tuple[str, str]:
    """Command of a line, and its comment: a `#` behind a blank and outside quotes begins it."""
    quote = ""
    for position, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and line[:position].endswith((" ", "\t")):
            return line[:position], line[position:]
    return line, ""


@dataclass
class Session:
    """Working directory and namespace of a reader who runs a page from top to bottom.

    Attributes:
        short: options that shorten a command, by a regular expression of its words; None runs
            every command whole.
        namespace: of the Python blocks.
        log: commands that were run.
    """

    short: tuple[tuple[str, str], ...] | None
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})
    log: list[str] = field(default_factory=list)

    def run(self, block: Block) -> None:
        """Run a block, or write it as the file that its first comment names."""
        file = FILE_NAME.match(block.text)
        if file is not None:
            Path(file["name"]).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            for command in commands(block):
                self.run_command(command, block)
        elif block.language == "bash":
            self.configure(block)
        elif block.language == "python":
            self.run_python(block)
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "toml":
            tomllib.loads(block.text)

    def run_python(self, block: Block) -> None:
        """Execute a Python block in the namespace of the page."""
        text = block.text
        if self.short is not None:
            for long, brief in SHORTER_PYTHON:
                text = re.sub(long, brief, text)
        # lines of a traceback are those of the page
        exec(compile("\n" * block.line + text, block.location, "exec"), self.namespace)

    def run_command(self, command: Command, block: Block) -> None:
        """Run a command of `mu`; check the words of any other."""
        program, *words = command.words
        if program == "cd":
            os.chdir(words[0])
        elif program != "mu":
            check_other_program(program, words, block)
        else:
            argv = self.arguments(words, command)
            if argv is not None:
                self.log.append(shlex.join(["mu", *argv]))
                code = main(argv)
                assert code == 0, f"{block.location}: {self.log[-1]} ended with {code}"

    def configure(self, block: Block) -> None:
        """Read the configuration of a command that a script starts on several machines."""
        joined = re.sub(r" *\\\n\s*", " ", block.text)
        for command in re.findall(r"\bmu (?:fit|validate|test|predict) .*", joined):
            words = [word for word in shlex.split(command)[1:] if not word.startswith("$")]
            self.log.append(shlex.join(["mu", *words, "--print_config"]))
            assert main([*words, "--print_config"]) == 0, f"{block.location}: {command}"

    def arguments(self, words: list[str], command: Command) -> list[str] | None:
        """Words of a command as it is run: shortened, or where it is marked only configured."""
        if command.marked:
            if words[0] == "fit":
                return [*words, "--print_config"]
            files = [word for option, word in pairwise(words) if option == "-c"]
            missing = [file for file in files if not is_config(file)]
            assert missing == [], f"{command.words}: {missing}"
            return None
        text = " ".join(words)
        for pattern, options in self.short or ():
            if re.match(pattern, text):
                return [*words, *options.split()]
        return words


def is_config(file: str) -> bool:
    """Whether a configuration comes with `mu`, or is a file of the reader's own."""
    return find_config(file).is_file() or Path(file).name.startswith("my_")


def check_other_program(program: str, words: list[str], block: Block) -> None:
    """Check that a target of make and an extra of pip exist, and that the program is a usual one.

    Raises:
        AssertionError: names page and line.
    """
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words) <= set(targets), f"{block.location}: make {' '.join(words)}"
    elif program.endswith("pip"):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = {
            extra for word in words for extra in ",".join(re.findall(r"\[(.*)\]", word)).split(",")
        }
        assert extras - {""} <= set(project["optional-dependencies"]), block.location
    else:
        usual = (
            "python3",
            ".venv/bin/python",
            ".venv/bin/pre-commit",
            ".",
            "git",
            "ls",
            "cat",
            "open",
        )
        launchers = ("torchrun", "sbatch", "srun", "ray")
        assert program in (*usual, *launchers), f"{block.location}: {program}"


def pages() -> Iterator[Path]:
    """README, contribution guide and pages of the documentation that are not generated."""
    yield ROOT / "README.md"
    yield ROOT / "CONTRIBUTING.md"
    for file in sorted((ROOT / "docs").rglob("*.md")):
        parts = file.relative_to(ROOT / "docs").parts
        generated = parts[0] in ("_build", "_generated", "methods", "api", "tutorials")
        if not generated:
            yield file


def forget_user_modules() -> None:
    """Remove modules of a page's own files from memory, so that the next page has its own."""
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
