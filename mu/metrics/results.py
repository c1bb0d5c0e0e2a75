"""What a run measured, as data: `results.json` and `outputs.safetensors` in a run folder."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mu.utils.errors import InputError, RunError
from mu.utils.files import read_json, save_tensors, write_json
from mu.utils.version import __version__

FORMAT = 1
"""Version of results.json."""


@dataclass(frozen=True)
class Result:
    """One number.

    Attributes:
        metric: its name (`UA`).
        value: finite; a metric that could not be computed is an error, never a default value.
        higher_is_better: None where closeness to the oracle is the goal.
        split: the part of the split that it was measured on.
        unit: `%`, `pp`, `s`, `nats`, or empty.
        detail: what else must stand beside the number (sizes of the attack's pools, a judge's name
            and version).
    """

    metric: str
    value: float
    higher_is_better: bool | None = None
    split: str = ""
    unit: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise RunError(
                f"{self.metric} on {self.split or 'this run'} is {self.value}, so it could not be "
                "measured."
            )


@dataclass
class RunResults:
    """All of `results.json`.

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
    """

    task: str
    method: str
    results: list[Result] = field(default_factory=list)
    seeds: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def value(self, metric: str) -> float:
        """The number of a metric.

        Raises:
            InputError: when the run did not measure it.
        """
        for result in self.results:
            if result.metric == metric:
                return result.value
        known = ", ".join(result.metric for result in self.results) or "nothing"
        raise InputError(f"the run {self.task}/{self.method} has no {metric}; it has {known}.")

    def has(self, metric: str) -> bool:
        """Whether the run measured it."""
        return any(result.metric == metric for result in self.results)

    @property
    def unlearning_seconds(self) -> float:
        """Everything but evaluation: masks, statistics, training, edits."""
        return sum(value for stage, value in self.seconds.items() if stage != "evaluation")

    def save(self, folder: Path | str) -> None:
        """Write `results.json` into a run folder, atomically."""
        write_json(Path(folder) / "results.json", {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, folder: Path | str) -> RunResults:
        """Read a run folder's `results.json`."""
        file = Path(folder) / "results.json"
        raw = read_json(file)
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise InputError(f"{file} is not a results file of this version of mu.")
        try:
            return cls(
                raw["task"],
                raw["method"],
                [Result(**r) for r in raw["results"]],
                raw["seeds"],
                raw["hashes"],
                raw["seconds"],
                raw["facts"],
            )
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{file} is not a results file of this version of mu ({error})."
            ) from error


def save_outputs(folder: Path | str, outputs: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Per-example outputs as `outputs.safetensors`: tensors named `split/field`, rows in the order
    of `split/index`.
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
    """What `save_outputs` wrote, by split and field."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = Path(folder) / "outputs.safetensors"
    if not file.is_file():
        raise InputError(f"{folder} holds no outputs.safetensors; test the run first.")
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise InputError(f"{file} cannot be read ({error}); it may have been cut off.") from error
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        split, _, name = key.rpartition("/")
        found.setdefault(split, {})[name] = value
    return found


def versions() -> dict[str, str]:
    """Versions of what computed the numbers, and the hardware."""
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
