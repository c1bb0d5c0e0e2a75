"""Measurements of a run's models: `results.json` in its folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mu.metrics.results import Presentation, Result, TradeOff
from mu.utils.checksums import checkpoint_digest
from mu.utils.errors import InputError
from mu.utils.files import locked, read_json, write_json
from mu.utils.fingerprint import digest
from mu.utils.run_layout import CHECKPOINT, LOCK, RESULTS, SPLIT
from mu.utils.version import __version__

FORMAT = 3
"""Version of results.json."""


@dataclass
class Measurement:
    """Results of one suite on one model.

    Attributes:
        suite: class path of the suite; empty for results that belong to none.
        options: its arguments as plain data, defaults among them, without its `oracle`.
        results: what it measured.
        oracle: hash of the weights of the oracle that it compared with; empty without one.
        presentation: meaning of the metrics and their order in a report.
        seconds: time that the suite took.
        measured: time of the test in UTC, ISO 8601.
        sources: hash of the suite's source code.
        versions: versions of the libraries, device and threads of the test.
    """

    suite: str
    options: dict[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    oracle: str = ""
    presentation: Presentation = field(default_factory=Presentation)
    seconds: float = 0.0
    measured: str = ""
    sources: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def same_question(self, other: Measurement) -> bool:
        """Whether both are of the same suite with the same options and the same oracle."""
        return (self.suite, self.options, self.oracle) == (
            other.suite,
            other.options,
            other.oracle,
        )


@dataclass
class RunResults:
    """Measurements of one model of a run, on one split.

    `results.json` holds several where a run was tested at several checkpoints.

    Attributes:
        task: name of the task in the study, or its class.
        method: name of the method in the study, or its class.
        measurements: what each suite measured.
        seeds: `split`, `train`, `unlearn`.
        hashes: `split`, `train_split`, `original` (weights before the run), `weights` (after),
            `checkpoint`, `recipe`, `config` (settings of the run), `key` (reuse).
        seconds: by stage.
        facts: class paths, epochs and steps, trainable and moved weights, peak memory, versions,
            hardware.
    """

    task: str
    method: str
    measurements: list[Measurement] = field(default_factory=list)
    seeds: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def results(self) -> list[Result]:
        """Results of all measurements; of a metric that several measured, the newest."""
        owners: dict[str, Measurement] = {}
        for measurement in sorted(self.measurements, key=lambda entry: entry.measured):
            owners |= dict.fromkeys((result.metric for result in measurement.results), measurement)
        return [
            result
            for measurement in self.measurements
            for result in measurement.results
            if owners[result.metric] is measurement
        ]

    @property
    def presentation(self) -> Presentation:
        """Meaning of the metrics of all measurements, and their order in a report."""
        return Presentation.merged(entry.presentation for entry in self.measurements)

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

    def merged_over(self, older: RunResults) -> RunResults:
        """These measurements and those of an earlier test of the same model on the same split.

        An earlier measurement of the same suite, options and oracle is replaced. Names, seeds and
        key that a study gave stay.

        Args:
            older: the earlier test.
        """
        measurements = list(older.measurements)
        for measurement in self.measurements:
            positions = [i for i, m in enumerate(measurements) if m.same_question(measurement)]
            if positions:
                measurements[positions[0]] = measurement
            else:
                measurements.append(measurement)
        seconds = {**older.seconds, **self.seconds}
        if measurements:
            seconds["evaluation"] = sum(entry.seconds for entry in measurements)
        names = older if older.hashes.get("key") and not self.hashes.get("key") else self
        return RunResults(
            names.task,
            names.method,
            measurements,
            names.seeds,
            {**self.hashes, "key": names.hashes.get("key", "")},
            seconds,
            {**older.facts, **self.facts},
        )

    def same_model(self, other: RunResults) -> bool:
        """Whether both are of the same weights, from the same checkpoint, on the same split."""
        return all(
            self.hashes.get(name, "") == other.hashes.get(name, "")
            for name in ("weights", "checkpoint", "split")
        )

    def save(self, folder: Path | str) -> None:
        """Add the measurements to `results.json` of a run folder, locked and atomically.

        Raises:
            InputError: the file that is there cannot be read.
        """
        folder = Path(folder)
        with locked(folder / LOCK):
            entries = RunResults.load_all(folder) if (folder / RESULTS).exists() else []
            same = [entry for entry in entries if entry.same_model(self)]
            further = [entry for entry in entries if not entry.same_model(self)]
            merged = self
            for entry in same:
                merged = merged.merged_over(entry)
            entries = [_model_entry(entry) for entry in [*further, merged]]
            models = json.loads(json.dumps(entries, allow_nan=False))
            content = {"format": FORMAT, "models": models}
            write_json(folder / RESULTS, {"hash": digest(content), **content})

    @classmethod
    def load(cls, folder: Path | str) -> RunResults:
        """Measurements of the weights that a run folder holds now.

        Raises:
            InputError: the file is missing or broken, or all of it is about other weights.
        """
        current = cls.current(cls.load_all(folder), folder)
        if current is None:
            raise InputError(
                f"the results in {folder} do not belong to the run: its weights have changed since "
                f"the test; measure it again with mu test --run {folder}."
            )
        return current

    @classmethod
    def current(
        cls,
        entries: Iterable[RunResults],
        folder: Path | str,
        checkpoint: Path | str = CHECKPOINT,
    ) -> RunResults | None:
        """Entry about the weights and the split that a run folder holds now.

        Args:
            entries: of its `results.json`, as from `load_all`.
            folder: the run folder.
            checkpoint: file with the weights, from the run folder.

        Returns:
            The newest where the folder holds no checkpoint; None where all are of other weights.
        """
        present = checkpoint_digest(Path(folder) / checkpoint)
        candidates = [
            entry
            for entry in entries
            if not present or entry.hashes.get("checkpoint") in ("", None, present)
        ]
        file = Path(folder) / SPLIT
        if len(candidates) > 1 and file.is_file():
            content = read_json(file)
            split = content.get("hash") if isinstance(content, dict) else None
            same = [entry for entry in candidates if entry.hashes.get("split") == split]
            candidates = same or candidates
        return candidates[-1] if candidates else None

    @classmethod
    def load_all(cls, folder: Path | str) -> list[RunResults]:
        """Measurements of all models in a run folder's `results.json`, the newest test last.

        Raises:
            InputError: the file is missing, cut off, changed, or of another version.
        """
        file = Path(folder) / RESULTS
        raw = read_json(file)
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise InputError(
                f"{file} is not a results file of this version of mu; delete it and measure the "
                "run again."
            )
        if raw.pop("hash", None) != digest(raw):
            raise InputError(
                f"{file} was changed after it was written: its hash does not fit its contents; "
                "delete it and measure the run again."
            )
        try:
            return [_model(entry) for entry in raw["models"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{file} is not a results file of this version of mu ({error})."
            ) from error


def stale_results(entries: Iterable[RunResults], current: RunResults | None) -> dict[str, str]:
    """Metrics measured on other weights than those of the run, by the model that has them.

    Args:
        entries: of a run's `results.json`.
        current: the entry about the weights that the folder holds now.

    Returns:
        `UA, RA` by `epoch 3`, or by the hash of the weights where the epochs are not known.
    """
    stale: dict[str, str] = {}
    for entry in entries:
        if entry is current or not entry.results:
            continue
        progress = [
            f"{name.removesuffix('s')} {entry.facts[name]}"
            for name in ("epochs", "steps")
            if entry.facts.get(name) is not None
        ]
        model = ", ".join(progress) or f"weights {entry.hashes.get('weights', '')}"
        if current is not None and entry.hashes.get("checkpoint") == current.hashes.get(
            "checkpoint"
        ):
            model += f" on split {entry.hashes.get('split', '')}"
        metrics = ", ".join(dict.fromkeys(result.metric for result in entry.results))
        stale[model] = ", ".join(filter(None, (stale.get(model), metrics)))
    return stale


def _model_entry(entry: RunResults) -> dict[str, Any]:
    """Plain data of a model's measurements: optional entries of a result only where there are."""
    measurements = [
        {**asdict(measurement), "results": [_entry(result) for result in measurement.results]}
        for measurement in entry.measurements
    ]
    return {**asdict(replace(entry, measurements=[])), "measurements": measurements}


def _entry(result: Result) -> dict[str, Any]:
    optional = ("undefined", "interval", "warning")
    return {key: value for key, value in asdict(result).items() if value or key not in optional}


def _model(raw: Mapping[str, Any]) -> RunResults:
    _check_types(raw)
    return RunResults(**{**raw, "measurements": [_measurement(m) for m in raw["measurements"]]})


def _measurement(raw: Mapping[str, Any]) -> Measurement:
    for name, expected in (("results", list), ("presentation", Mapping), ("options", Mapping)):
        if not isinstance(raw[name], expected):
            raise TypeError(f"its entry {name!r} is of a wrong type")
    return Measurement(
        **{
            **raw,
            "results": [_result(entry) for entry in raw["results"]],
            "presentation": _presentation(raw["presentation"]),
        }
    )


def _check_types(raw: Mapping[str, Any]) -> None:
    """Raise a TypeError for an entry of results.json of a wrong type."""
    mappings = ("seeds", "hashes", "seconds", "facts")
    wrong = [name for name in mappings if not isinstance(raw[name], Mapping)]
    if not wrong:
        texts = {"task": raw["task"], "method": raw["method"], **raw["hashes"]}
        wrong = [name for name, value in texts.items() if not isinstance(value, str)]
        counts = {**raw["seeds"], **raw["seconds"]}
        wrong += [name for name, value in counts.items() if not isinstance(value, int | float)]
    if not isinstance(raw["measurements"], list):
        wrong.append("measurements")
    if wrong:
        raise TypeError(f"its entry {wrong[0]!r} is of a wrong type")


def _result(entry: Mapping[str, Any]) -> Result:
    interval = entry.get("interval")
    return Result(**{**entry, "interval": None if interval is None else tuple(interval)})


def _presentation(raw: Mapping[str, Any]) -> Presentation:
    trade_offs = [
        TradeOff(**{**entry, "x": tuple(entry["x"]), "y": tuple(entry["y"])})
        for entry in raw["trade_offs"]
    ]
    return Presentation(dict(raw["definitions"]), list(raw["headline"]), trade_offs)


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
