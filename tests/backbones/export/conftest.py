"""Fixture of tests of `mu import`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mu.cli.main import main
from tests.support.compvis_files import Import
from tests.support.doubles import pipeline_folder


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Import:
    """`mu import FILE tmp_path/out --base ...`: exit code, and the one line that it says."""

    def call(file: object, *words: object, base: object = pipeline_folder()) -> tuple[int, str]:
        capsys.readouterr()
        code = main(
            ["import", str(file), str(tmp_path / "out"), "--base", str(base), *map(str, words)]
        )
        heard = capsys.readouterr()
        lines = [line for line in (heard.out + heard.err).strip().splitlines() if line]
        assert len(lines) == 1 and "Traceback" not in heard.err, heard
        return code, lines[0].removeprefix("mu: ")

    return call
