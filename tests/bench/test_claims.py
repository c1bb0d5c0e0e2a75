"""Claims of runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from mu.bench.claims import claim

HOLDER = """
import sys, time
from pathlib import Path
from mu.bench.claims import claim
lock = claim(Path(sys.argv[1]), "run")
print("claimed" if lock is not None else "busy", flush=True)
time.sleep(600)
"""


def test_one_process_at_a_time_holds_a_claim_and_loses_it_when_killed(tmp_path: Path) -> None:
    """Fails when two processes may work on one run, or a killed one blocks it for ever."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "claimed\n"
        assert claim(tmp_path, "run") is None
        other = claim(tmp_path, "another run")
        assert other is not None
        other.release()
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    lock = claim(tmp_path, "run")
    assert lock is not None
    lock.release()


def test_a_released_claim_is_free(tmp_path: Path) -> None:
    for _ in range(2):
        lock = claim(tmp_path, "run", wait=True)
        assert lock is not None
        lock.release()
