"""Table of single runs: seeds, values in full precision, ends of intervals, remarks."""

from __future__ import annotations

from collections.abc import Sequence

from mu.bench.report.runs import SEED_NAMES, Collection, RunEntry


def run_table(collection: Collection, metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table.

    Behind the metrics stand the ends of the rates' intervals, and a column of remarks where some
    run has an undefined metric or a warning. A cell is empty where a run did not measure, and nan
    where the metric is undefined.

    Args:
        collection: the runs.
        metrics: columns of values.
    """
    rates = sorted(
        {
            result.metric
            for run in collection.runs
            for result in run.record.results
            if result.interval is not None
        }
    )
    remarks = {id(run): _remarks(run) for run in collection.runs}
    header = [
        "task",
        "method",
        *(f"{name}_seed" for name in SEED_NAMES),
        *metrics,
        *(f"{metric} {end}" for metric in rates for end in ("low", "high")),
        *(["remarks"] if any(remarks.values()) else []),
    ]
    lines = []
    for task in collection.tasks:
        for run in task.runs:
            seeds = [str(run.record.seeds.get(name, "")) for name in SEED_NAMES]
            values = [_value(run, name) for name in metrics]
            remark = [remarks[id(run)]] if any(remarks.values()) else []
            lines.append([task.name, run.method, *seeds, *values, *_ends(run, rates), *remark])
    return header, lines


def _value(run: RunEntry, metric: str) -> str:
    if metric in run.undefined:
        return "nan"
    return repr(run.values[metric]) if metric in run.values else ""


def _ends(run: RunEntry, rates: Sequence[str]) -> list[str]:
    intervals = {result.metric: result.interval for result in run.record.results}
    return [
        "" if end is None else repr(end)
        for metric in rates
        for end in intervals.get(metric) or (None, None)
    ]


def _remarks(run: RunEntry) -> str:
    """Reasons of undefined metrics, and warnings, of a run."""
    undefined = [f"{metric}: undefined, because {why}" for metric, why in run.undefined.items()]
    warnings = [f"{r.metric}: {r.warning}" for r in run.record.results if r.warning]
    return " ".join([*undefined, *warnings])
