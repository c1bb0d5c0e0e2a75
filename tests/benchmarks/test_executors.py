"""Time of a study with two worker processes against the serial one, at equal threads in total.

Measured as wall-clock time, so it says something on an idle machine with two cores only.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from mu.bench.events import JobEnded
from mu.bench.executors.base import Executor
from mu.bench.executors.local import Local, available_cores
from mu.bench.executors.serial import Serial
from mu.bench.runner import Bench
from mu.bench.study_file import read_study

pytestmark = pytest.mark.slow
QUICKSTART = Path(__file__).parents[2] / "configs" / "bench" / "quickstart.yaml"
SPEEDUP = 1.6


def seconds_of(executor: Executor, output: Path, threads: int) -> float:
    """Seconds of the whole quickstart, start of the workers included."""
    changes = [("output", str(output)), ("threads", threads)]
    bench = Bench(read_study(QUICKSTART, changes))
    bench.check()
    start = time.perf_counter()
    ends = [event for event in executor.execute(bench) if isinstance(event, JobEnded)]
    seconds = time.perf_counter() - start
    assert {event.outcome.state for event in ends} <= {"ran", "reused"}
    return seconds


@pytest.mark.skipif(available_cores() < 2, reason="two workers need two cores")
def test_two_workers_are_faster_than_one_process_with_two_threads(
    tmp_path: Path, measured: Any, say: Any
) -> None:
    """Fails when workers wait for each other, or every job pays for another start of torch."""

    def both() -> tuple[float, float]:
        serial = seconds_of(Serial(), tmp_path / "serial", threads=2)
        return serial, seconds_of(Local(2), tmp_path / "local", threads=1)

    serial, local = measured(both)
    text = f"{serial:.0f} s serial, {local:.0f} s with two workers: {serial / local:.2f} times"
    say(text, serial=serial, local=local)
    assert serial / local >= SPEEDUP
