"""Notes on how columns were measured: judge, number of images, attack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mu.bench.report.specs import short
from mu.bench.report.summary import Summary

_COUNTED = ("images", "prompts", "real images")
"""Units that are written behind their number."""

_FEW = 3
"""Largest number of texts that are listed where runs differ."""


def details(summary: Summary) -> list[str]:
    """One sentence for each way of measuring: `UA measured with: judge Shapes; 400 images.`

    Only columns that are good by themselves need it; where closeness to the oracle counts, the
    oracle was measured alike.
    """
    columns: dict[str, list[str]] = {}
    for metric in summary.directed:
        settings = [
            result.detail
            for run in summary.task.runs
            for result in run.record.results
            if result.metric == metric
        ]
        keys = dict.fromkeys(key for detail in settings for key in detail)
        phrases = [
            _phrase(key, [detail[key] for detail in settings if key in detail]) for key in keys
        ]
        text = "; ".join(phrase for phrase in phrases if phrase)
        columns.setdefault(text, []).append(metric)
    return [
        f"{', '.join(metrics)} measured with: {text}." for text, metrics in columns.items() if text
    ]


def _phrase(key: str, values: Sequence[Any]) -> str:
    """A key and its value; where runs differ, their range, a few values, or a note."""
    distinct = [value for value in _distinct(values) if value is not None and value != ""]
    name = key.replace("_", " ")
    if not distinct:
        return ""
    numeric = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in distinct
    )
    if len(distinct) > 1 and numeric:
        text = f"{_text(min(distinct))}–{_text(max(distinct))}"
    elif len(distinct) > _FEW:
        return f"{name} differ{'' if name.endswith('s') else 's'} from run to run"
    else:
        text = " or ".join(_text(value) for value in distinct)
        if len(distinct) > 1:
            text += ", depending on the run"
    return f"{text} {name}" if numeric and name in _COUNTED else f"{name} {text}"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(short, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else short(value)


def _distinct(values: Iterable[Any]) -> list[Any]:
    distinct: list[Any] = []
    for value in values:
        if not any(type(value) is type(other) and value == other for other in distinct):
            distinct.append(value)
    return distinct
