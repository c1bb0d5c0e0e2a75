"""Bench whose runs wait for a file, so that a worker can be killed in the middle of one."""

from __future__ import annotations

import time
from typing import Any

from mu.bench.events import Outcome
from mu.bench.runner import Bench
from mu.bench.study import Job

GO = ".go"
LONGEST = 300.0


class WaitingBench(Bench):
    """Bench that waits behind the claim of a run until the file `.go` is in the study's folder."""

    def begin(self, job: Job, wait: bool = False) -> Outcome | Any:
        work = super().begin(job, wait)
        if not callable(work):
            return work

        def waiting_work() -> Outcome:
            end = time.monotonic() + LONGEST
            while not (self.study.output / GO).exists() and time.monotonic() < end:
                time.sleep(0.05)
            return work()

        return waiting_work
