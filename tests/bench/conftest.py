"""Finished study that the tests of this folder share; they copy it before they change it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.cli.bench import main
from tests.bench.small_study import written


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the small study, run in one process, and of its file."""
    folder = tmp_path_factory.mktemp("study")
    assert main(["-c", str(written(folder))]) == 0
    return folder
