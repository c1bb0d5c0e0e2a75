"""Which metrics a table shows, in which order, and which way is good: decided by what the runs
measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mu.bench.report.runs import RunEntry, TaskRuns
from mu.utils.errors import InputError

ORDER = (
    "UA",
    "RA",
    "TA",
    "MIA",
    "IRA",
    "CRA",
    "FID",
    "KID",
    "CLIP",
    "pre_ASR",
    "ASR",
    "log10_FQ",
    "MU",
    "ES",
    "PrivLeak",
    "relearning",
    "quantisation",
    "MAE/forget",
    "MAE/retain",
    "MAE/test",
    "MAE/validation",
    "wasserstein",
    "MIA/error_member",
)
"""Headline metrics in the papers' order; any other follows in the order in which it was
measured.
"""

ASIDE = frozenset(
    {
        "avg_gap",
        "seconds",
        "ToW",
        "activation_distance",
        "JS",
        "completeness",
        "trainable",
        "moved",
        "peak_memory",
        "FQ",
        "EM",
        "memorisation",
        "privacy",
        "utility",
        "overall",
        "selection",
    }
)
"""Metrics that have a place of their own, cost something, or repeat the gap in another form."""

_BREAKDOWN = ("gap/", "seconds/")


def headline(names: Iterable[str]) -> list[str]:
    """The metrics that a table shows.

    A name with a slash is a part of another (`MIA/entropy`, `accuracy/validation`), so it stands
    aside, but for the errors of regressors, which have no other form. Where nothing but parts was
    measured, the parts are shown.

    Args:
        names: what was measured, in order.
    """
    names = list(dict.fromkeys(names))
    found = [
        name
        for name in names
        if name in ORDER or name.startswith("MAE/") or ("/" not in name and name not in ASIDE)
    ]
    found = found or [
        name for name in names if name not in ASIDE and not name.startswith(_BREAKDOWN)
    ]
    return sorted(found, key=lambda name: _rank(name, names))


def _rank(name: str, names: Sequence[str]) -> tuple[float, int | str]:
    if name in ORDER:
        return ORDER.index(name), 0
    if name.startswith("MAE/"):
        return ORDER.index("MAE/validation") + 0.5, name
    return len(ORDER), names.index(name)


def agreed(task: TaskRuns, field: str) -> dict[str, Any]:
    """A property of each metric (`unit`, `higher_is_better`), on which all of the task's runs must
    agree.

    Raises:
        InputError: when two runs say different things about one metric.
    """
    found: dict[str, tuple[Any, RunEntry]] = {}
    for run in task.runs:
        for result in run.record.results:
            value, first = found.setdefault(result.metric, (getattr(result, field), run))
            if value != getattr(result, field):
                raise InputError(
                    f"{result.metric} has {field} {value!r} in {first.name}, but "
                    f"{getattr(result, field)!r} in {run.name}, so it is not one metric; report "
                    "the two apart."
                )
    return {metric: value for metric, (value, _) in found.items()}


def arrow(better: bool | None) -> str:
    """`↑` where higher is better, `↓` where lower is; nothing where closeness to the oracle is the
    goal.
    """
    return "" if better is None else "↑" if better else "↓"
