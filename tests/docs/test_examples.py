"""Examples of docs/extending.md and code blocks of the README run as they stand."""

from __future__ import annotations

import csv
import doctest
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mu.attacks import Misclassified
from mu.cli.main import COMMANDS
from tests.docs.conftest import DOCS, ROOT

EXAMPLES = sorted((DOCS / "examples").glob("my_*.py"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *DOCS.glob("*.md"),
    *DOCS.glob("quickstart/*.md"),
]


def loaded(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study of docs/extending.md, run in a folder that has nothing but the examples."""
    folder = tmp_path_factory.mktemp("examples")
    for file in (DOCS / "examples").glob("my_*"):
        shutil.copy(file, folder)
    completed = subprocess.run(
        [sys.executable, "-m", "mu", "bench", "my_study.yaml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "failed" not in completed.stdout
    return folder / "runs/wine"


@pytest.mark.xdist_group("docs")
def test_the_report_shows_a_suite_and_methods_from_a_users_files(study: Path) -> None:
    """Fails when a suite's own metric, its sentence or a method is missing from a report."""
    suite = loaded(DOCS / "examples/my_suite.py").ConfidenceGap
    page = (study / "report.html").read_text()
    sentence = suite.definitions["confidence_gap"].replace("'", "&#39;")
    for text in ("confidence_gap", sentence, "PushAndPull", "HingeUnlearning", "OneStepAscent"):
        assert text in page
    with (study / "results.csv").open() as file:
        text = file.read()
    assert "confidence_gap" in text and "MaskedRandomLabel" in text
    assert csv.DictReader(text.splitlines()).fieldnames


@pytest.mark.xdist_group("docs")
def test_each_method_of_the_study_comes_closer_to_the_oracle(study: Path) -> None:
    """Fails when an example runs but does not do what its page says."""
    from mu.metrics import RunResults

    accuracy = {
        method: RunResults.load(
            next((study / "second" / method).rglob("results.json")).parent
        ).value("UA")
        for method in ("original", "PushAndPull", "HingeUnlearning", "OneStepAscent")
    }
    assert accuracy.pop("original") < min(accuracy.values())


def test_the_attack_of_the_page() -> None:
    """Fails when the noise leaves the ball, or success is not counted per sample."""
    from tests.support.helpers import classifier

    attack = loaded(DOCS / "examples/my_attack.py").RandomNoise(epsilon=0.1)
    batch = {
        "image": torch.full((4, 1, 8, 8), 0.5),
        "label": torch.zeros(4, dtype=torch.int64),
        "index": torch.arange(4),
    }
    result = attack(classifier(), batch, Misclassified())
    distance = (result.adversarial["image"] - batch["image"]).abs().amax()
    assert 0 < float(distance) <= 0.1 + 1e-6
    assert result.success.shape == (4,)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_is_on_the_page_and_its_docstring_examples_hold(file: Path) -> None:
    """Fails when an example is not shown, or the result in its docstring is wrong."""
    assert f"examples/{file.name}" in (DOCS / "extending.md").read_text()
    outcome = doctest.testmod(loaded(file), extraglobs={"torch": torch})
    assert not outcome.failed


def test_the_readme_shows_the_examples() -> None:
    """Fails when the README's code and the file that a test runs differ."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for name in ("quickstart_vision", "my_method"):
        source = (DOCS / f"examples/{name}.py").read_text()
        body = source if name == "my_method" else source.split('"""\n\n', 1)[1]
        assert any(block.endswith(body) for block in blocks), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_commands_and_files_that_exist(page: Path) -> None:
    """Fails when a page names a file of configs, a source file or a command that is not there."""
    text = page.read_text()
    files = re.findall(
        r"\b(?:configs|mu|tasks|callbacks|tests|docs)/[\w./]+\.(?:yaml|pyi?|md)", text
    )
    assert [file for file in files if not (ROOT / file).is_file()] == []
    commands = re.findall(r"^\s*(?:\$ )?(?:\.venv/bin/)?mu (\w+)", text, re.MULTILINE)
    assert [command for command in commands if command not in COMMANDS] == []


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["vision", "diffusion", "language"])
def test_quickstart_in_python(domain: str, tmp_path: Path) -> None:
    """Fails when a quickstart does not run from an empty folder."""
    completed = subprocess.run(
        [sys.executable, str(DOCS / f"examples/quickstart_{domain}.py")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr
