"""Objective of a search: what makes one trial better than another."""

from __future__ import annotations

from mu.bench.study import Study
from mu.metrics.results import Result
from mu.metrics.run_results import RunResults
from mu.utils.errors import InputError

GAP = ("avg_gap",)
"""The objective where there is an oracle."""


class ObjectiveError(InputError):
    """Error of an objective that no trial can have, so that the search must end."""


def has_oracle(study: Study) -> bool:
    """Whether the search retrains oracles of its own forget sets."""
    oracle = study.search.get("oracle", "retrain")
    if oracle not in ("retrain", "none"):
        raise InputError(f"search.oracle is {oracle!r}; it is none, or retrain.")
    return oracle == "retrain" and study.has_oracle and study.pretrained_oracle is None


def objective_of(study: Study) -> tuple[str, ...]:
    """Metrics of the objective."""
    named = study.search.get("objective")
    if named:
        return (named,) if isinstance(named, str) else tuple(named)
    if not has_oracle(study):
        raise InputError(
            "a search judges by the gap to the oracle, and this study has none for it; name "
            "metrics in search.objective."
        )
    return GAP


def loss(record: RunResults, objective: tuple[str, ...]) -> float:
    """Loss of a trial: the mean over the objective's metrics, negative where higher is better.

    Raises:
        ObjectiveError: when a metric was not measured or has no direction, or units differ.
    """
    results: dict[str, Result] = {
        result.metric: result for result in record.results if result.metric in objective
    }
    values = []
    for name in objective:
        if not record.has(name):
            raise ObjectiveError(
                f"search.objective names {name}, which no suite of the study measures; it has "
                f"{', '.join(result.metric for result in record.results) or 'nothing'}."
            )
        value = record.value(name)
        if results[name].higher_is_better is None:
            raise ObjectiveError(
                f"{name} is good when it is close to the oracle's, so a search cannot make it "
                "large or small; choose another metric in search.objective."
            )
        values.append(-value if results[name].higher_is_better else value)
    units = list(dict.fromkeys(result.unit for result in results.values()))
    if len(units) > 1:
        raise ObjectiveError(
            f"search.objective averages {', '.join(objective)}, whose units differ "
            f"({', '.join(u or 'none' for u in units)}); name metrics of one unit."
        )
    return sum(values) / len(values)


def undefined_reasons(record: RunResults, objective: tuple[str, ...]) -> list[str]:
    """Reasons of the objective's metrics that are undefined on a trial."""
    return [
        f"{result.metric} is undefined, because {result.undefined}"
        for result in record.results
        if result.metric in objective and result.undefined
    ]
