"""Making an epoch's plan for a data set of CIFAR's size: at most 0.2 s, for every schedule.

Process CPU time, the quickest of three epochs (what another process takes is not the plan's).
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from mu.data.plan import Everything, Forget, Paired, Phases, Retain, Schedule, Union, plan

pytestmark = pytest.mark.slow
SIZES = {"forget": 5_000, "retain": 45_000, "train": 50_000}
SCHEDULES: list[Schedule] = [
    Retain(), Everything(shuffle=False), Paired(), Union(), Phases(Forget(), Retain()), Phases(Forget(shuffle=False), Union()),
]


@pytest.mark.parametrize("batch", [64, 256])
def test_a_plan_is_made_in_no_time(batch: int, benchmark: Any, say: Any) -> None:
    """Fails when a step of the plan costs as much as the samples of a whole epoch."""
    def slowest() -> tuple[float, Schedule]:
        return max(((min(_seconds(schedule, epoch) for epoch in range(3)), schedule) for schedule in SCHEDULES), key=lambda found: found[0])

    def _seconds(schedule: Schedule, epoch: int) -> float:
        begin = time.process_time()
        plan(schedule, epoch, SIZES, dict.fromkeys(SIZES, batch), 0)
        return time.process_time() - begin

    seconds, schedule = benchmark.pedantic(slowest, rounds=1, iterations=1)
    say(f"at most {1e3 * seconds:.1f} ms an epoch of 50,000 samples, by {schedule}", seconds=seconds)
    assert seconds <= 0.2
