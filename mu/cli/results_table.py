"""Table of the metrics of a test on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mu.cli.list import print_table
from mu.metrics.results import Result


def print_results(results: Sequence[Result]) -> None:
    """Print metrics with their intervals, and warn of undefined values and of few items."""
    intervals = any(result.interval for result in results)
    titles = ["metric", "value", *(["95 % interval"] if intervals else []), "unit", "part"]
    print_table(titles, [_row(result, intervals) for result in results])
    for sentence, metrics in _sentences(results).items():
        print(f"mu: warning: {', '.join(metrics)}: {sentence}", file=sys.stderr)


def _row(result: Result, intervals: bool) -> list[str]:
    value = "undefined" if result.value is None else f"{result.value:.6g}"
    interval = ""
    if result.interval is not None:
        interval = "{:.4g} to {:.4g}".format(*result.interval)
    return [
        result.metric,
        value,
        *([interval] if intervals else []),
        result.unit,
        result.split,
    ]


def _sentences(results: Sequence[Result]) -> dict[str, list[str]]:
    """Metrics by the sentence on them: why they are undefined, or a warning."""
    metrics: dict[str, list[str]] = {}
    for result in results:
        if result.undefined:
            metrics.setdefault(f"undefined, because {result.undefined}", []).append(result.metric)
        if result.warning:
            metrics.setdefault(result.warning, []).append(result.metric)
    return metrics
