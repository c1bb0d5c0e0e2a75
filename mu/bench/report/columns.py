"""Columns of a task's table, chosen and ordered by what the suites declare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mu.bench.report.runs import RunEntry, TaskRuns
from mu.metrics.results import Presentation
from mu.utils.errors import InputError

OF_REPORT = frozenset({"avg_gap", "seconds"})
"""Metrics with a column of their own behind the headline."""

_BREAKDOWN = ("gap/", "seconds/")


def headline(metrics: Iterable[str], presentation: Presentation) -> list[str]:
    """Metrics that head a table, in order.

    The suites' headlines come first. A metric that no suite defines follows in the order in which
    it was measured, but for parts (names with a slash). Where nothing but parts was measured, the
    parts are shown.

    Args:
        metrics: what was measured, in order.
        presentation: what the suites declare.

    Example:
        >>> presentation = Presentation({"UA": "", "ES": "", "UA/": ""}, ["ES", "UA"])
        >>> headline(["UA", "UA/circle", "ES", "mine"], presentation)
        ['ES', 'UA', 'mine']
    """
    metrics = [metric for metric in dict.fromkeys(metrics) if metric not in OF_REPORT]
    declared = [
        metric
        for name in presentation.headline
        for metric in (sorted(metrics) if name.endswith("/") else metrics)
        if metric == name or (name.endswith("/") and metric.startswith(name))
    ]
    undefined = [
        metric
        for metric in metrics
        if "/" not in metric and presentation.definition_key(metric) is None
    ]
    columns = list(dict.fromkeys([*declared, *undefined]))
    return columns or [
        metric for metric in metrics if "/" in metric and not metric.startswith(_BREAKDOWN)
    ]


def agreed(task: TaskRuns, field: str) -> dict[str, Any]:
    """A property of each metric (`unit`, `higher_is_better`), the same in all of a task's runs.

    Raises:
        InputError: when two runs differ in it.
    """
    values: dict[str, tuple[Any, RunEntry]] = {}
    for run in task.runs:
        for result in run.record.results:
            value, first = values.setdefault(result.metric, (getattr(result, field), run))
            if value != getattr(result, field):
                raise InputError(
                    f"{result.metric} has {field} {value!r} in {first.name}, but "
                    f"{getattr(result, field)!r} in {run.name}, so it is not one metric; report "
                    "the two apart."
                )
    return {metric: value for metric, (value, _) in values.items()}
