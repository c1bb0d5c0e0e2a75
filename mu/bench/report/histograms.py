"""Histograms of a per-example score of forget, retain and test, as small SVG paths."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mu.bench.report.runs import ORACLE, RunEntry
from mu.bench.report.summary import Summary
from mu.metrics.run_outputs import has_outputs, load_outputs

SPLITS = ("forget", "retain", "test")
BINS = 24
_HEIGHT = 30.0  # of a cell, in units of which it is 100 wide


@dataclass(frozen=True)
class Histogram:
    """SVG path of a model's histogram, the oracle's for comparison, and the mean of the score."""

    path: str
    oracle: str
    mean: float


@dataclass(frozen=True)
class Grid:
    """Histograms with a row for each model and a column for each split.

    Attributes:
        score: `confidence` or `absolute error`.
        high: the right end of every cell; the left is 0.
        seed: the seed whose runs are shown.
        splits: the columns.
        rows: method and its cells; None where there were no outputs.
    """

    score: str
    high: float
    seed: str
    splits: tuple[str, ...]
    rows: list[tuple[str, list[Histogram | None]]]


def histograms(summary: Summary) -> Grid | None:
    """Histograms of one seed: the first that has an oracle, else the first.

    None when no run kept outputs with a score, or runs differ in the score.
    """
    first = (summary.task.oracles or summary.task.runs)[0]
    runs = {
        row.method: next((run for run in row.runs if run.label == first.label), None)
        for row in summary.rows
    }
    scores = {method: _scores(run) for method, run in runs.items() if run is not None}
    names = {score for score, _ in scores.values() if score}
    if len(names) != 1:
        return None
    score = names.pop()
    by_method = {method: values for method, (_, values) in scores.items()}
    splits = tuple(name for name in SPLITS if any(name in values for values in by_method.values()))
    high = (
        1.0
        if score == "confidence"
        else _high([tensor for values in by_method.values() for tensor in values.values()])
    )
    paths = {
        (method, split): _steps(tensor, high)
        for method, values in by_method.items()
        for split, tensor in values.items()
    }

    def cell(method: str, split: str) -> Histogram | None:
        if split not in by_method[method]:
            return None
        mean = float(by_method[method][split].mean())
        return Histogram(paths[method, split], paths.get((ORACLE, split), ""), mean)

    rows = [(method, [cell(method, split) for split in splits]) for method in by_method]
    return Grid(score, high, first.label, splits, rows)


def _scores(run: RunEntry) -> tuple[str, dict[str, Tensor]]:
    """Name of the score, and its values `[N]` by split; empty when the run kept no such outputs."""
    if not has_outputs(run.folder, run.record.hashes.get("weights", "")):
        return "", {}
    outputs = load_outputs(run.folder)
    values: dict[str, Tensor] = {}
    score = ""
    for name in SPLITS:
        rows = outputs.get(name, {})
        if {"logits", "label"} <= set(rows) and len(rows["label"]):
            score = "confidence"
            probabilities = rows["logits"].float().softmax(1)
            values[name] = probabilities.gather(1, rows["label"].long()[:, None]).squeeze(1)
        elif {"prediction", "target"} <= set(rows) and len(rows["target"]):
            score = "absolute error"
            values[name] = (rows["prediction"].float() - rows["target"].float()).abs()
    return score, values


def _high(values: list[Tensor]) -> float:
    """Round number at or above the largest value, so that no sample falls outside."""
    top = max(float(v.max()) for v in values)
    if top <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(top))
    return next(
        step * unit for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * unit >= top * (1 - 1e-6)
    )


def _steps(values: Tensor, high: float) -> str:
    """Closed outline of a histogram; heights are square roots of shares, to show few samples."""
    share = torch.histc(values.clamp(0, high), bins=BINS, min=0, max=high) / len(values)
    tops = (_HEIGHT * (1 - share.sqrt())).tolist()
    width = 100 / BINS
    return (
        f"M0 {_HEIGHT:g}"
        + "".join(f"V{top:.1f}H{(i + 1) * width:.1f}" for i, top in enumerate(tops))
        + f"V{_HEIGHT:g}Z"
    )
