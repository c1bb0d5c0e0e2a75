"""Commands that answer without torch; how fast they do is measured in tests/benchmarks."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mu as package
from mu.utils import source_file as sources
from tests.cli.conftest import REPOSITORY, Mu

SCRIPT = Path(sys.executable).with_name("mu")
FILE = Path(package.__file__).parent / "cli" / "main.py"


def process(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`mu` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, str(FILE), *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=300,
    )


def test_only_files_that_matter_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mu: Mu
) -> None:
    """Fails when a folder full of scripts is parsed from end to end for the one method in it, or
    all of mu for a list of its methods.
    """
    (tmp_path / "my_method.py").write_text(
        "from mu.methods import SSD\n\n\nclass Mine(SSD):\n    pass\n"
    )
    for index in range(50):
        (tmp_path / f"script{index}.py").write_text(
            "import os\n\n\ndef f(x):\n    return [x, x + 1]\n"
        )
    monkeypatch.chdir(tmp_path)
    parsed: list[str] = []
    parse = ast.parse

    def counted(text: str) -> ast.Module:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(sources.ast, "parse", counted)
    assert "my_method.Mine" in mu("list", "methods").out
    assert "import os\n\n\ndef f(x):\n    return [x, x + 1]\n" not in parsed
    assert (
        len(parsed)
        == len(set(parsed))
        < 0.6 * sum(1 for _ in Path(package.__file__).parent.rglob("*.py"))
    )


def test_light_commands_import_nothing_heavy() -> None:
    """Whatever the machine's speed; also the errors that a configuration file alone can cause."""
    start = (
        "import sys; from mu.cli.main import main\n"
        "for words in ('--help', 'list methods', 'list tasks', 'show SSD', 'fti', 'fit -c "
        "nowhere.yaml', 'fit --model SalunX',\n"
        "              'fit -c configs/task/digits_random.yaml -c configs/method/ssd.yaml --model "
        "mu.methods.Nope'): main(words.split())\n"
        "print(sorted(set(sys.modules) & {'torch', 'lightning', 'numpy', 'timm', 'torchvision', "
        "'sklearn', 'mu.methods', 'tasks'}))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, cwd=REPOSITORY, timeout=120
    )
    assert answer.stdout.strip().splitlines()[-1] == "[]", answer.stdout + answer.stderr


def test_help_names_every_command(mu: Mu) -> None:
    from mu.cli.main import COMMANDS

    for words in ([], ["--help"], ["-h"]):
        answer = mu(*words)
        assert answer.code == 0
        assert all(f"mu {command}" in answer.out for command in COMMANDS)


def test_version(mu: Mu) -> None:
    assert mu("--version").out.strip() == f"mu {package.__version__}"


def test_help_of_fit_is_lightnings_and_names_our_options(mu: Mu) -> None:
    answer = mu("fit", "--help")
    assert answer.code == 0
    for word in (
        "--trainer.max_epochs",
        "--model",
        "--data",
        "--ckpt_path",
        "--print_config",
        "--run DIR",
        "--resume",
    ):
        assert word in answer.out
    assert "torch.optim" not in answer.out.partition("--model")[2].partition("--data")[0]


@pytest.mark.parametrize(
    ("word", "meant"), [("fti", "fit"), ("tets", "test"), ("lst", "list"), ("benhc", "bench")]
)
def test_unknown_command_names_the_closest(mu: Mu, word: str, meant: str) -> None:
    answer = mu(word)
    assert answer.code == 2
    assert answer.sentence == f"there is no command '{word}'; did you mean '{meant}'?"


def test_option_before_the_command(mu: Mu) -> None:
    assert "the first word is a command" in mu("-c", "task.yaml", "fit").sentence


def test_unexpected_error_is_one_sentence_and_a_traceback_with_debug(
    mu: Mu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutation: letting an exception through, or forgetting `--debug`."""
    from mu.cli import list as listing

    def fail(argv: list[str]) -> int:
        raise ZeroDivisionError("a bug\nover two lines")

    monkeypatch.setattr(listing, "main", fail)
    answer = mu("list")
    assert answer.code == 1
    assert (
        answer.sentence
        == "ZeroDivisionError: a bug over two lines; run again with --debug for the traceback."
    )
    debugged = mu("list", "--debug")
    assert debugged.code == 1
    assert "Traceback" in debugged.err


def test_other_ranks_are_silent(mu: Mu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    answer = mu("fti")
    assert (answer.code, answer.err) == (2, "")


def test_main_leaves_argv_and_path_as_they_were(mu: Mu) -> None:
    before = list(sys.argv), list(sys.path), sys.modules["__main__"].__spec__
    mu("fit", "-c", "task.yaml", "-c", "method.yaml", "--print_config")
    assert (list(sys.argv), list(sys.path), sys.modules["__main__"].__spec__) == before


def test_as_a_module(tmp_path: Path) -> None:
    """`python -m` puts the working directory first, where a user's tasks.py would hide ours."""
    (tmp_path / "tasks.py").write_text("class Mine: pass\n")
    answer = subprocess.run(
        [sys.executable, "-m", "mu.cli.main", "list", "tasks"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert "tasks.Digits" in answer.stdout, answer.stderr


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the console script is not beside this Python")
def test_the_console_script(tmp_path: Path) -> None:
    answer = subprocess.run(
        [str(SCRIPT), "fti"], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert (answer.returncode, answer.stderr) == (
        2,
        "mu: there is no command 'fti'; did you mean 'fit'?\n",
    )
