"""Validation curves of runs, read from `curves.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mu.bench.report.summary import Summary
from mu.utils.errors import InputError
from mu.utils.files import read_json

Curves = Mapping[str, Sequence[Sequence[Mapping[str, float]]]]
"""By method: for each run, the rows of its `curves.json`."""


def load_curves(summary: Summary) -> Curves:
    """Curves of the task's methods, from the runs that have them.

    Raises:
        InputError: when a curves.json is not what the Curves callback writes.
    """
    curves: dict[str, list[Any]] = {}
    for row in summary.rows:
        for run in row.runs:
            file = run.folder / "curves.json"
            if not row.is_method or not file.is_file():
                continue
            points = read_json(file)
            if not isinstance(points, list) or not all(
                isinstance(point, dict) and "step" in point for point in points
            ):
                raise InputError(
                    f"{file} is not a list of rows with a step, as the Curves callback writes: "
                    f"{json.dumps(points)[:60]}."
                )
            curves.setdefault(row.method, []).append(points)
    return curves
