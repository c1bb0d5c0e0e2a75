"""Time to make an epoch's plan for data of CIFAR's size: at most 0.2 s for every plan.

Process CPU time, the quickest of three epochs (what another process takes is not the plan's).
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from mu.data.plan import DataPlan, Everything, Forget, Paired, Phases, Retain, Union, plan_steps

pytestmark = pytest.mark.slow
SIZES = {"forget": 5_000, "retain": 45_000, "train": 50_000}
PLANS: list[DataPlan] = [
    Retain(),
    Everything(shuffle=False),
    Paired(),
    Union(),
    Phases(Forget(), Retain()),
    Phases(Forget(shuffle=False), Union()),
]


@pytest.mark.parametrize("batch", [64, 256])
def test_a_plan_takes_little_time(batch: int, benchmark: Any, say: Any) -> None:
    """Fails when a step of the plan costs as much as the samples of a whole epoch."""

    def slowest() -> tuple[float, DataPlan]:
        return max(
            ((min(_seconds(plan, epoch) for epoch in range(3)), plan) for plan in PLANS),
            key=lambda timed: timed[0],
        )

    def _seconds(plan: DataPlan, epoch: int) -> float:
        begin = time.process_time()
        plan_steps(plan, epoch, SIZES, dict.fromkeys(SIZES, batch), 0)
        return time.process_time() - begin

    seconds, plan = benchmark.pedantic(slowest, rounds=1, iterations=1)
    say(f"at most {1e3 * seconds:.1f} ms an epoch of 50,000 samples, by {plan}", seconds=seconds)
    assert seconds <= 0.2
