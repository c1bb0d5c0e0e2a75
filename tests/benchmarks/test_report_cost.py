"""Processor time to report 4,000 runs: at most 10 s."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from mu.bench import report
from tests.support.report_studies import make_study

pytestmark = pytest.mark.slow
SECONDS = 10.0


def test_4000_runs_are_reported_in_ten_seconds(tmp_path: Path, measured: Any, say: Any) -> None:
    """Fails when a page compares every run with every other, or opens a file of a run twice."""
    tasks = tuple(f"task{index}" for index in range(4))
    methods = tuple(f"method{position}" for position in range(18))
    make_study(tmp_path, seeds=50, methods=methods, tasks=tasks)

    def write() -> float:
        begin = time.process_time()
        report.write(tmp_path)
        return time.process_time() - begin

    seconds = measured(write)
    say(f"4,000 runs in {seconds:.1f} s", seconds=seconds)
    assert (tmp_path / "report.html").is_file()
    assert seconds <= SECONDS
