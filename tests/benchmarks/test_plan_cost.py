"""Time to make an epoch's plan: at most 0.2 s for CIFAR's size, 7 s for ImageNet's, for any plan.

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


LARGE = {"forget": 1_300, "retain": 1_198_700, "train": 1_200_000}


@pytest.mark.parametrize(
    ("sizes", "batch", "bound"),
    [(SIZES, 64, 0.2), (SIZES, 256, 0.2), (LARGE, 256, 7.0)],
    ids=["50,000 by 64", "50,000 by 256", "1.2 million by 256"],
)
def test_a_plan_takes_little_time(
    sizes: dict[str, int], batch: int, bound: float, benchmark: Any, say: Any
) -> None:
    """Fails when a step of the plan costs as much as the samples of a whole epoch."""

    def slowest() -> tuple[float, DataPlan]:
        return max(
            ((min(_seconds(plan, epoch) for epoch in range(3)), plan) for plan in PLANS),
            key=lambda timed: timed[0],
        )

    def _seconds(plan: DataPlan, epoch: int) -> float:
        begin = time.process_time()
        plan_steps(plan, epoch, sizes, dict.fromkeys(sizes, batch), 0)
        return time.process_time() - begin

    seconds, plan = benchmark.pedantic(slowest, rounds=1, iterations=1)
    say(
        f"at most {1e3 * seconds:.1f} ms an epoch of {sizes['train']:,} samples, by {plan}",
        seconds=seconds,
    )
    assert seconds <= bound
