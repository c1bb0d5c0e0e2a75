"""What must be known beside a number: who judged, on how many images, under which attack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mu.bench.report.settings import short
from mu.bench.report.summary import Summary

_COUNTED = ("images", "prompts", "real images")
"""Words that stand after their number."""

_FEW = 3
"""So many texts are told where runs differ."""


def details(summary: Summary) -> list[str]:
    """A sentence for each way in which columns were measured: `UA, IRA: judge Shapes; threshold
    0.5; 400 images.`

    Only columns that are good by themselves need it; where closeness to the oracle counts, the
    oracle was measured alike.
    """
    told: dict[str, list[str]] = {}
    for metric in summary.columns:
        if summary.better.get(metric) is not None:
            found = [
                r.detail
                for run in summary.task.runs
                for r in run.record.results
                if r.metric == metric
            ]
            keys = dict.fromkeys(key for detail in found for key in detail)
            words = [
                _words(key, [detail[key] for detail in found if key in detail]) for key in keys
            ]
            told.setdefault("; ".join(word for word in words if word), []).append(metric)
    return [f"{', '.join(metrics)}: {text}." for text, metrics in told.items() if text]


def _words(key: str, values: Sequence[Any]) -> str:
    """A key and its value; where runs differ, a range, a few values, or that they do."""
    known = [value for value in _distinct(values) if value is not None and value != ""]
    name = key.replace("_", " ")
    if not known:
        return ""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    if len(known) > 1 and numbers:
        text = f"{_plain(min(known))}–{_plain(max(known))}"
    elif len(known) > _FEW:
        return f"{name} differ{'' if name.endswith('s') else 's'} from run to run"
    else:
        text = " in some runs, in others ".join(_plain(value) for value in known)
    return f"{text} {name}" if numbers and name in _COUNTED else f"{name} {text}"


def _plain(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else short(value)


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not any(type(value) is type(other) and value == other for other in found):
            found.append(value)
    return found
