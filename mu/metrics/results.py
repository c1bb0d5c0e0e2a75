"""Results of a run as data: `results.json` and `outputs.safetensors` in its folder."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mu.metrics.rates import Rate
from mu.utils.errors import InputError, UndefinedError
from mu.utils.files import read_json, save_tensors, write_json
from mu.utils.version import __version__

FORMAT = 2
"""Version of results.json."""

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


@dataclass
class RunResults:
    """Content of `results.json`.

    Attributes:
        task: name of the task in the study, or its class.
        method: name of the method in the study, or its class.
        results: the numbers.
        seeds: `split`, `train`, `unlearn`.
        hashes: `split`, `train_split`, `original` (weights before the run), `weights` (after),
            `recipe`, `key` (reuse).
        seconds: by stage.
        facts: class paths, trainable and moved weights, peak memory, versions, hardware, what was
            run.
        presentation: meaning of the metrics and their order in a report.
    """

    task: str
    method: str
    results: list[Result] = field(default_factory=list)
    seeds: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    presentation: Presentation = field(default_factory=Presentation)

    def value(self, metric: str) -> float:
        """Value of a metric.

        Raises:
            InputError: when the run did not measure it.
            UndefinedError: when it is undefined on this run.
        """
        for result in self.results:
            if result.metric == metric:
                return result.number
        metrics = ", ".join(result.metric for result in self.results) or "nothing"
        raise InputError(f"the run {self.task}/{self.method} has no {metric}; it has {metrics}.")

    def has(self, metric: str) -> bool:
        """Whether the run measured a metric; it may be undefined."""
        return any(result.metric == metric for result in self.results)

    @property
    def unlearning_seconds(self) -> float:
        """Seconds of all stages but evaluation: masks, statistics, training, edits."""
        return sum(value for stage, value in self.seconds.items() if stage != "evaluation")

    def save(self, folder: Path | str) -> None:
        """Write `results.json` into a run folder, atomically."""
        content = {**asdict(self), "results": [_entry(result) for result in self.results]}
        write_json(Path(folder) / "results.json", {"format": FORMAT, **content})

    @classmethod
    def load(cls, folder: Path | str) -> RunResults:
        """Read a run folder's `results.json`."""
        file = Path(folder) / "results.json"
        raw = read_json(file)
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise InputError(f"{file} is not a results file of this version of mu.")
        try:
            _check_types(raw)
            return cls(
                raw["task"],
                raw["method"],
                [_result(entry) for entry in raw["results"]],
                raw["seeds"],
                raw["hashes"],
                raw["seconds"],
                raw["facts"],
                _presentation(raw["presentation"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{file} is not a results file of this version of mu ({error})."
            ) from error


def _check_types(raw: Mapping[str, Any]) -> None:
    """Raise a TypeError for an entry of results.json of a wrong type."""
    mappings = ("seeds", "hashes", "seconds", "facts", "presentation")
    wrong = [name for name in mappings if not isinstance(raw[name], Mapping)]
    if not wrong:
        texts = {"task": raw["task"], "method": raw["method"], **raw["hashes"]}
        wrong = [name for name, value in texts.items() if not isinstance(value, str)]
        counts = {**raw["seeds"], **raw["seconds"]}
        wrong += [name for name, value in counts.items() if not isinstance(value, int | float)]
    if not isinstance(raw["results"], list):
        wrong.append("results")
    if wrong:
        raise TypeError(f"its entry {wrong[0]!r} is of a wrong type")


def _entry(result: Result) -> dict[str, Any]:
    """Entry of results.json: the reason, interval and warning only where there are any."""
    optional = ("undefined", "interval", "warning")
    return {key: value for key, value in asdict(result).items() if value or key not in optional}


def _result(entry: Mapping[str, Any]) -> Result:
    interval = entry.get("interval")
    return Result(**{**entry, "interval": None if interval is None else tuple(interval)})


def _presentation(raw: Mapping[str, Any]) -> Presentation:
    trade_offs = [
        TradeOff(**{**entry, "x": tuple(entry["x"]), "y": tuple(entry["y"])})
        for entry in raw["trade_offs"]
    ]
    return Presentation(dict(raw["definitions"]), list(raw["headline"]), trade_offs)


def save_outputs(folder: Path | str, outputs: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write per-example outputs to `outputs.safetensors`.

    Tensors are named `split/field`; rows are in the order of `split/index`.
    """
    save_tensors(
        Path(folder) / "outputs.safetensors",
        {
            f"{split}/{name}": value
            for split, values in outputs.items()
            for name, value in values.items()
        },
    )


def load_outputs(folder: Path | str) -> dict[str, dict[str, Tensor]]:
    """Read per-example outputs that `save_outputs` wrote, by split and field."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(folder) / "outputs.safetensors"
    if not file.is_file():
        raise InputError(f"{folder} holds no outputs.safetensors; test the run first.")
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file} cannot be read ({error}); it may have been cut off.") from error
    outputs: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        split, _, name = key.rpartition("/")
        outputs.setdefault(split, {})[name] = value
    return outputs


def versions() -> dict[str, str]:
    """Versions of mu, torch, lightning and Python, and the hardware."""
    import lightning
    import torch

    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine()
    )
    return {
        "mu": __version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
        "device": device,
        "threads": str(torch.get_num_threads()),
    }
