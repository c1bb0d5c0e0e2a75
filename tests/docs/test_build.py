"""The site builds without a warning, and the examples of docstrings give what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import DOCS, ROOT

pytestmark = pytest.mark.xdist_group("docs")  # the builds share the generated pages


def build(builder: str, **variables: str) -> str:
    """The site in docs/_build, as `make docs` makes it; the output of a build that failed."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", builder]
    paths = ["-d", "docs/_build/doctrees", "docs", f"docs/_build/{builder}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    completed = subprocess.run(
        [*command, *paths], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return completed.stdout + completed.stderr if completed.returncode else ""


def test_the_site_builds_without_a_warning() -> None:
    """Fails on a broken link, a page outside every table of contents, markup in a docstring that
    cannot be read, or a class that cannot be imported.
    """
    pytest.importorskip("sphinx")
    assert build("html") == ""
    site = DOCS / "_build/html"
    for page in ("index", "quickstart/vision", "methods/SalUn", "metrics", "cli", "extending"):
        assert (site / f"{page}.html").is_file()


@pytest.mark.slow
def test_tutorials_run_and_show_their_output() -> None:
    """Fails when a cell of a tutorial raises, or its output is missing from the page."""
    assert build("html", MU_EXECUTE="1") == ""
    for name, text in {
        "vision": "gradient ascent",
        "diffusion": "attacked:",
        "language": "oracle",
    }.items():
        page = (DOCS / f"_build/html/tutorials/{name}.html").read_text()
        outputs = page.split('class="cell_output')[1:]
        assert any(text in output for output in outputs), name


def test_examples_of_docstrings() -> None:
    """Fails when a worked example in a docstring of the API gives something else."""
    pytest.importorskip("sphinx")
    assert build("doctest") == ""
    summary = Path(DOCS / "_build/doctest/output.txt").read_text()
    assert "0 failures in tests" in summary
