"""Bench whose runs take a while, so that they can be cut off in the middle."""

from __future__ import annotations

import time
from typing import Any

from mu.bench.events import Outcome
from mu.bench.runner import Bench
from mu.bench.study import Job


class SlowBench(Bench):
    """Bench that waits behind the claim of a run, before it trains or measures."""

    def begin(self, job: Job, wait: bool = False) -> Outcome | Any:
        work = super().begin(job, wait)
        if not callable(work):
            return work

        def slow_work() -> Outcome:
            time.sleep(2.0)
            return work()

        return slow_work
