"""Every command and code block of README and documentation runs, top to bottom of its page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.docs.blocks import Session, blocks, commands, forget_user_modules, pages
from tests.docs.conftest import DOCS, ROOT
from tests.docs.readme_tables import README, with_tables

LANGUAGES = ("console", "python", "yaml", "toml", "text", "csv", "json", "bash")
SHORT = (
    (r"fit .*(esd|uce)", "--trainer.max_steps 2"),
    (r"fit .*(authors|npo)", "--trainer.max_epochs 2 --trainer.limit_train_batches 2"),
    (r"fit", "--trainer.max_epochs 1"),
    (r"test .*concepts", "--trainer.callbacks.erased.limit 2 --trainer.callbacks.kept.limit 4"),
    (r"bench .*(shapes|authors)", "--check"),
    (r"bench .*quickstart", "--tasks class --seeds 0"),
    (r"bench .*digits", "--tasks three --seeds 0 --set recipe.trainer.max_epochs=2"),
)
"""Options that shorten commands in `make test`, by the beginning of the command."""
PAGES = [page for page in pages() if blocks(page)]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty working directory, but for the examples that the documentation shows as files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for file in (DOCS / "examples").glob("my_*"):
        shutil.copy(file, tmp_path)
    forget_user_modules()
    return tmp_path


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_code_of_a_page_run_shortened(page: Path, reader: Path) -> None:
    """Fails when a command is refused, a file it needs is written by no command before it, or a
    code block raises.
    """
    session = Session(SHORT)
    for block in blocks(page):
        session.run(block)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_code_of_a_page_run_whole(page: Path, reader: Path) -> None:
    """Fails when a page promises what its commands do not do."""
    session = Session(None)
    for block in blocks(page):
        session.run(block)


@pytest.mark.parametrize("page", list(pages()), ids=name_of)
def test_blocks_have_a_language_that_is_checked(page: Path) -> None:
    """Fails when a block has no language, or commands stand in an indented block that no test
    reads.
    """
    strange = [
        block.location
        for block in blocks(page)
        if block.language not in LANGUAGES and not block.language.startswith("{")
    ]
    assert strange == []
    outside = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^ {4,}(?:mu|make|pip|\$|\.venv/bin/\w+) .*", outside, re.MULTILINE) == []


def test_tables_of_the_readme_are_those_of_the_catalogue() -> None:
    """Fails when a class is added and the README does not know it."""
    text = README.read_text()
    assert text == with_tables(text), "run python -m tests.docs.readme_tables"


def test_the_readme_is_short() -> None:
    """Fails when the README grows beyond 250 lines."""
    assert len(README.read_text().splitlines()) <= 250


def test_commands_are_read_as_a_shell_reads_them(tmp_path: Path) -> None:
    """Fails when a continued line, a comment or a second command of a line is lost."""
    text = "```console\n$ mu fit -c 'a b' \\\n     --run x   # a GPU\nout\n$ cd x && mu list\n```\n"
    file = tmp_path / "page.md"
    file.write_text(text)
    first, second, third = commands(blocks(file)[0])
    assert first.words == ("mu", "fit", "-c", "a b", "--run", "x") and first.marked
    assert second.words == ("cd", "x") and third.words == ("mu", "list") and not third.marked
