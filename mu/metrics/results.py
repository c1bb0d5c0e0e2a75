"""Results of metrics as data, and their presentation in a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mu.metrics.rates import Rate
from mu.utils.errors import InputError, UndefinedError

SHARED_DEFINITIONS = {
    "avg_gap": "Mean of the distances |metric − metric of the oracle of the same seeds| over the "
    "metrics named under the table.",
    "gap/": "|metric − metric of the oracle of the same seeds|.",
    "seconds": "Wall-clock time of unlearning: masks, statistics, training and edits; evaluation "
    "and search are not in it.",
}
"""Definitions of metrics that a suite may measure and that a report computes where none did."""


@dataclass(frozen=True)
class Result:
    """Value of one metric, or the reason why it has none.

    Attributes:
        metric: name of the metric (`UA`); a part of another metric has a slash (`UA/circle`).
        value: finite; None where the metric is undefined, never a default value.
        higher_is_better: None where closeness to the oracle is the goal.
        split: the part of the split that was measured.
        unit: `%`, `pp`, `s`, `nats`, `MiB`, `weights` (a count of them), or empty.
        detail: settings that a reader needs beside the number (sizes of the attack's pools, a
            judge's name and version).
        undefined: one sentence, why the metric is undefined; empty where it has a value.
        interval: ends of a rate's 95 % interval, in its unit; None for other metrics.
        warning: one sentence that a reader of the value needs; empty without.

    Raises:
        UndefinedError: the value is not finite.
        InputError: there is a value and a reason why there is none, or neither.
    """

    metric: str
    value: float | None
    higher_is_better: bool | None = None
    split: str = ""
    unit: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    undefined: str = ""
    interval: tuple[float, float] | None = None
    warning: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) != bool(self.undefined):
            raise InputError(f"{self.metric} needs either a value, or a reason why it has none.")
        if self.value is not None and not math.isfinite(self.value):
            raise UndefinedError(
                f"{self.metric} on {self.split or 'this run'} is {self.value}, so it could not be "
                "measured."
            )

    @property
    def number(self) -> float:
        """Value of a defined metric.

        Raises:
            UndefinedError: the metric is undefined.
        """
        if self.value is None:
            raise UndefinedError(f"{self.metric} is undefined: {self.undefined}")
        return self.value


def compute_result(
    metric: str,
    compute: Callable[[], float | Rate],
    higher_is_better: bool | None = None,
    split: str = "",
    unit: str = "",
    detail: Mapping[str, Any] | None = None,
) -> Result:
    """Result of a metric that may be undefined, with the interval and the warning of a rate.

    Args:
        metric: name of the metric.
        compute: computes the value; an UndefinedError becomes the result's reason.
        higher_is_better: see Result.
        split: see Result.
        unit: see Result.
        detail: see Result.

    Example:
        >>> from mu.metrics.tofu import harmonic_mean
        >>> compute_result("MU", lambda: harmonic_mean([1.0, 0.5])).value
        0.6666666666666666
        >>> compute_result("MU", lambda: harmonic_mean([math.nan])).value is None
        True
    """
    about = dict(detail or {})
    try:
        value = compute()
        if isinstance(value, Rate):
            return Result(
                metric,
                value.percent,
                higher_is_better,
                split,
                unit,
                {**about, **value.detail()},
                interval=value.interval,
                warning=value.warning,
            )
        return Result(metric, float(value), higher_is_better, split, unit, about)
    except UndefinedError as reason:
        return Result(metric, None, higher_is_better, split, unit, about, undefined=str(reason))


@dataclass(frozen=True)
class TradeOff:
    """Two goals that methods trade against each other, drawn as a scatter plot.

    Attributes:
        title: title of the figure.
        x: metrics of the horizontal axis; their mean where there are several.
        y: metrics of the vertical axis; likewise.
        x_label: label of the horizontal axis; the metrics' names when empty.
        y_label: label of the vertical axis; likewise.
    """

    title: str
    x: tuple[str, ...]
    y: tuple[str, ...]
    x_label: str = ""
    y_label: str = ""


@dataclass
class Presentation:
    """Meaning of a run's metrics, and their order in a report, as the suites declare them.

    Attributes:
        definitions: one sentence for each metric; a key that ends with a slash defines every
            metric that begins with it.
        headline: metrics that head a table, in order; a name that ends with a slash stands for
            every metric that begins with it.
        trade_offs: the scatter plots.
    """

    definitions: dict[str, str] = field(default_factory=dict)
    headline: list[str] = field(default_factory=list)
    trade_offs: list[TradeOff] = field(default_factory=list)

    @classmethod
    def merged(cls, parts: Iterable[Presentation]) -> Presentation:
        """One presentation of several suites or runs; where two define a metric, the first counts.

        Example:
            >>> accuracy = Presentation({"UA": "Unlearning accuracy."}, ["UA"])
            >>> attack = Presentation({"MIA": "Membership inference."}, ["MIA"])
            >>> Presentation.merged([accuracy, attack]).headline
            ['UA', 'MIA']
        """
        merged = cls()
        for part in parts:
            merged.definitions = {**merged.definitions, **part.definitions, **merged.definitions}
            merged.headline += [name for name in part.headline if name not in merged.headline]
            merged.trade_offs += [
                trade_off for trade_off in part.trade_offs if trade_off not in merged.trade_offs
            ]
        return merged

    def definition_key(self, metric: str) -> str | None:
        """Key of the definition of a metric: its name, or else the longest prefix; None without.

        Example:
            >>> presentation = Presentation({"UA": "On all images.", "UA/": "On some of them."})
            >>> presentation.definition_key("UA/circle")
            'UA/'
        """
        if metric in self.definitions:
            return metric
        prefixes = [key for key in self.definitions if key.endswith("/") and metric.startswith(key)]
        return max(prefixes, key=len, default=None)
