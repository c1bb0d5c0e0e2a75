"""Oracle values of metrics, item by item: from a log file, from a model, or from the run itself.

A log (`items.json` in a run folder) holds the hash of the weights and, for each metric, the value,
the values of the items by stable index, and the hash of the exact tokens. A log of other items or
tokens is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mu.evaluation.text.graph import Graph, Measurement, Metric, OracleLog
from mu.evaluation.text.membership import MembershipAUC
from mu.evaluation.text.metrics import TruthRatio
from mu.metrics import tofu
from mu.utils.errors import InputError, UndefinedError
from mu.utils.files import read_json, write_json

LOG = "items.json"
"""File name of the log in a run folder."""
_FORMAT = 1
_ORIGINAL = "eval_log_forget"
_OPEN_UNLEARNING = "forget_truth_ratio"


class SelfOracle(OracleLog):
    """Oracle log of a run that is itself the oracle, with equal values by construction."""

    def measure(self, node: Metric, graph: Graph) -> Measurement:
        return graph.value(node)

    def label(self, graph: Graph) -> str:
        return "its own"


class OracleModel(OracleLog):
    """Oracle values measured on a model in memory, each once.

    Args:
        graph: metric graph of the oracle's backbone, with the same sets.
        device: device of the oracle; its weights return to the CPU afterwards.
    """

    def __init__(self, graph: Graph, device: torch.device | str = "cpu") -> None:
        self.graph = graph
        self.device = device

    def measure(self, node: Metric, graph: Graph) -> Measurement:
        if not self.graph.is_computed(node):
            # weights that are moved in inference mode can no longer take part in a gradient
            with torch.inference_mode(False):
                self.graph.backbone.to(self.device)
            self.graph.value(node)
            with torch.inference_mode(False):
                self.graph.backbone.to("cpu")
        return self.graph.value(node)

    def label(self, graph: Graph) -> str:
        return f"weights {self.graph.weights}"


class OracleFile(OracleLog):
    """Oracle values from a log file.

    Three formats are read: the log of mu, the evaluation file of OpenUnlearning (`TOFU_EVAL.json`:
    truth ratios and AUCs of attacks) and the aggregated log of TOFU's first code (truth ratios).
    The last two have no token hashes and number their items from 0, so only the number of items is
    checked.

    Args:
        path: a run folder, or a file.

    Raises:
        InputError: when there is no log, or its format is not recognised.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        file = self.path / LOG if self.path.is_dir() else self.path
        if self.path.is_dir() and not file.is_file():
            raise InputError(
                f"the oracle's folder {path} has no {LOG}; test that run with the same suites "
                "first."
            )
        raw = read_json(file)
        recognised = isinstance(raw, dict) and (
            raw.get("format") == _FORMAT or _ORIGINAL in raw or _OPEN_UNLEARNING in raw
        )
        if not recognised:
            raise InputError(
                f"{file} is not a log of items: it is neither mu's {LOG}, nor OpenUnlearning's "
                "TOFU_EVAL.json, nor TOFU's eval_log_aggregated.json."
            )
        self.raw: Mapping[str, Any] = raw
        self.native = raw.get("format") == _FORMAT

    def label(self, graph: Graph) -> str:
        return (
            f"weights {self.raw['weights']}"
            if self.native
            else f"{self.path.name}, tokens unchecked"
        )

    def measure(self, node: Metric, graph: Graph) -> Measurement:
        if not self.native:
            return self._from_other_format(node, graph)
        # read the log
        try:
            value = self.raw["values"].get(node.name)
            tokens = self.raw["tokens"].get(node.name)
            items = self.raw["items"].get(node.name)
        except (KeyError, AttributeError) as error:
            raise InputError(
                f"the oracle's log {self.path} is damaged ({error}); test that run again."
            ) from error
        if node.name in self.raw.get("undefined", {}):
            raise UndefinedError(
                f"the oracle's {node.name} is undefined, because {self.raw['undefined'][node.name]}"
            )
        if value is None:
            raise InputError(
                f"the oracle's log {self.path} has no {node.name}; test that run with the same "
                "suites and settings."
            )
        # compare items and tokens with those of this run
        measurement = graph.value(node)
        if items is not None and measurement.index is not None:
            self._check_items([int(index) for index in items], measurement.index.tolist(), node)
        if tokens != graph.tokens(node):
            raise InputError(
                f"the oracle's log {self.path} has {node.name} of other texts or tokens (other "
                "rows, another tokenizer, template or max_length); test that run on this task "
                "with this model's template."
            )
        # give the items in the order of this run
        if items is None or measurement.index is None:
            return Measurement(float(value))
        return Measurement(
            float(value),
            measurement.index,
            values_at(
                {int(index): float(item) for index, item in items.items()}, measurement.index
            ),
        )

    def _check_items(self, oracle_items: Sequence[int], items: Sequence[int], node: Metric) -> None:
        if len(oracle_items) != len(items):
            raise InputError(
                f"the oracle's log {self.path} has {node.name} of {len(oracle_items)} items, but "
                "this "
                f"run of {len(items)}; evaluate both on one set."
            )
        if set(oracle_items) != set(items):
            missing = min(set(oracle_items) - set(items))
            raise InputError(
                f"the oracle's log {self.path} is for other items ({node.name} of item {missing}, "
                "which is not in the set of this run); retrain and test the oracle on this split."
            )

    def _from_other_format(self, node: Metric, graph: Graph) -> Measurement:
        """Value from a log of OpenUnlearning or TOFU, under their names of metrics."""
        try:
            if isinstance(node, TruthRatio) and node.score != "probability":
                ratio = self._ratios()
                index = graph.value(node).index
                assert index is not None
                if len(ratio) != len(index):
                    raise InputError(
                        f"the oracle's log {self.path} has {len(ratio)} truth ratios, but the set "
                        f"{node.set} has {len(index)} rows; take the log for this forget set."
                    )
                return Measurement(tofu.closer_to_one(ratio).mean().item(), index, ratio)
            if isinstance(node, MembershipAUC) and f"mia_{node.attack}" in self.raw:
                return Measurement(float(self.raw[f"mia_{node.attack}"]["agg_value"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{self.path} is damaged, or of a version that mu does not know ({error!r})."
            ) from error
        raise InputError(
            f"the log {self.path} has no {node.name}; test an oracle's run with mu instead."
        )

    def _ratios(self) -> torch.Tensor:
        if _OPEN_UNLEARNING in self.raw:
            rows = self.raw[_OPEN_UNLEARNING]["value_by_index"]
            return torch.tensor(
                [float(rows[index]["score"]) for index in sorted(rows, key=int)],
                dtype=torch.float64,
            )
        part = self.raw[_ORIGINAL]
        order = sorted(part["avg_paraphrased_loss"], key=int)
        right, wrong = (
            [torch.tensor(part[name][index], dtype=torch.float64) for index in order]
            for name in ("avg_paraphrased_loss", "average_perturb_loss")
        )
        return tofu.truth_ratio(torch.stack(right), wrong)


def save_log(folder: Path | str, graph: Graph) -> None:
    """Write the measurements of a graph into `items.json` of a run folder.

    Measurements of other suites on the same model are kept.
    """
    file = Path(folder) / LOG
    # begin with measurements of the same model
    log: dict[str, Any] = {
        "format": _FORMAT,
        "weights": graph.weights,
        "model": graph.model,
        "values": {},
        "tokens": {},
        "items": {},
    }
    if file.is_file():
        stored = read_json(file)
        if isinstance(stored, dict) and (stored.get("format"), stored.get("model")) == (
            _FORMAT,
            graph.model,
        ):
            log = stored
    # add those of the graph
    for node, measured in graph.measurements():
        log["values"][node.name] = _json_number(measured.value)
        log["tokens"][node.name] = graph.tokens(node)
        if measured.items is not None and measured.index is not None:
            pairs = zip(measured.index.tolist(), measured.items.tolist(), strict=True)
            log["items"][node.name] = {str(index): _json_number(value) for index, value in pairs}
    undefined = dict(log.get("undefined", {}))
    undefined.update((node.name, reason) for node, reason in graph.undefined())
    if undefined:
        log["undefined"] = undefined
    write_json(file, log)


def _json_number(value: float) -> float | str:
    """Value for JSON, infinities and NaN as text, which `float` reads back."""
    return value if math.isfinite(value) else str(value)


def values_at(items: dict[int, float], index: Tensor) -> Tensor:
    """Values of items in the order of `index` `[N]`, in float64."""
    return torch.tensor([items[int(row)] for row in index], dtype=torch.float64)
