"""Studies that are killed again and again: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.bench.small_study import numbers_of, written

KILLS = 20
LONGEST = 25.0
"""Seconds until the latest moment of a kill."""

EXECUTORS = {
    "serial": [],
    "local": ["--workers", "2"],
    "ray": ["--executor", "ray", "--workers", "2"],
    "slurm": ["--executor", "slurm", "--slurm", "cluster=local", "--workers", "2"],
}


def finished_checkpoints(folder: Path) -> dict[Path, int]:
    """Time of the last checkpoint of every finished run."""
    return {
        file: (file.parent / "checkpoints" / "last.ckpt").stat().st_mtime_ns
        for file in folder.glob("out/*/**/run.json")
        if json.loads(file.read_text())["state"] == "finished"
        and (file.parent / "checkpoints" / "last.ckpt").is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_study_killed_at_random_moments_loses_and_repeats_nothing(
    executor: str, finished: Path, tmp_path: Path
) -> None:
    """Fails when a killed command leaves a run that cannot go on, a claim that is never freed, or
    trains a finished run again.
    """
    command = [sys.executable, "-m", "mu", "bench", "-c", str(written(tmp_path))]
    command += EXECUTORS[executor]
    moments = random.Random(0)
    output = tmp_path / "output.txt"
    weights: dict[Path, int] = {}
    with output.open("w") as lines:
        for _ in range(KILLS):
            process = subprocess.Popen(command, stdout=lines, stderr=lines)
            try:
                process.wait(moments.uniform(0.0, LONGEST))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            now = finished_checkpoints(tmp_path)
            assert weights.items() <= now.items(), "a finished run was trained again"
            weights = now
        assert subprocess.run(command, stdout=lines, stderr=lines, timeout=600).returncode == 0
    ends = r"^(?:ran|resumed) (.+?)(?: in [^;]*)?; \d+ of "
    trained = re.findall(ends, output.read_text(), re.MULTILINE)
    assert max(Counter(trained).values()) == 1
    assert numbers_of(tmp_path) == numbers_of(finished)
    folders = [path.name for path in (tmp_path / "out" / "random").glob("*/*")]
    assert len(folders) == 4
