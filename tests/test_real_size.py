"""Stable Diffusion 1.4 in its true shapes, with random weights: every text-to-image method makes a
step, and the attack too.

Each runs in a process of its own, so that its peak memory is its own. What was measured is printed
(`pytest -s`); see tests/support/real_size.py for the settings that keep it small.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mu.backbones import Backbone, TextToImage
from mu.core.module import UnlearningModule
from mu.core.needs import backbone_types
from tests.support.real_size import METHODS

NEEDED = 14
"""GB that must be free."""
pytestmark = pytest.mark.slow


def free() -> float:
    """GB of main memory that can be had."""
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    available = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return (
        available[0] * 1024 / 1e9
        if available
        else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    )


def measured(name: str) -> dict[str, Any]:
    if free() < NEEDED:
        pytest.skip(f"needs {NEEDED} GB of free memory")
    answer = subprocess.run(
        [sys.executable, "-m", "tests.support.real_size", name],
        capture_output=True,
        text=True,
        timeout=3000,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    measurements = json.loads(answer.stdout.strip().splitlines()[-1])
    print(
        f"\n{name}: {measurements['seconds']:.1f} s, {measurements['peak']:.1f} GB at most "
        f"({measurements['built']:.1f} GB when built)"
    )
    assert measurements["parameters"] == 859_520_964
    return measurements


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_a_method(name: str) -> None:
    """Mutations: a weight outside of the part that moves; a loss that overflows at this size."""
    measurements = measured(name)
    assert measurements["finite"] and measurements["outside"] == []
    assert measurements["moved"] > 0.5 * measurements["chosen"], (
        f"{measurements['moved']} of {measurements['chosen']} tensors moved"
    )


def test_a_step_of_the_attack() -> None:
    measurements = measured("unlearn_diff_atk")
    assert (
        measurements["finite"]
        and measurements["outside"] == []
        and (measurements["drawn"], measurements["steps"]) == (2, 1)
    )


def test_every_method_is_run() -> None:
    """Every method that admits a text-to-image model alone, or any noise predictor, is run."""
    import pkgutil
    from importlib import import_module

    import mu.methods

    run = {factory.__name__ for _, factory in METHODS.values()}
    classes = []
    for info in pkgutil.walk_packages(mu.methods.__path__, "mu.methods."):
        folder, _, name = info.name.removeprefix("mu.methods.").partition(".")
        if info.ispkg or folder not in ("general", "vision", "diffusion", "language"):
            continue
        module = import_module(info.name)
        for cls in vars(module).values():
            if (
                isinstance(cls, type)
                and issubclass(cls, UnlearningModule)
                and cls.__module__ == module.__name__
                and not cls.__name__.startswith("_")
                and issubclass(TextToImage, backbone_types(cls))
                and Backbone not in backbone_types(cls)
            ):
                classes.append(cls)
                assert name in run or name == "salun_diffusion", (
                    f"{cls.__name__} is not run at its true size"
                )
    assert classes
