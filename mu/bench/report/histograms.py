"""Histograms of a per-example score of forget, retain and test, before and after: small SVG steps,
cheap enough for every method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mu.bench.report.runs import ORACLE, RunEntry
from mu.bench.report.summary import Summary
from mu.metrics.results import load_outputs

SPLITS = ("forget", "retain", "test")
BINS = 24
_HEIGHT = 30.0  # of a cell, in units of which it is 100 wide


@dataclass(frozen=True)
class Histogram:
    """One cell: an SVG path of this model's steps, the oracle's for comparison, and the mean of the
    score.
    """

    path: str
    oracle: str
    mean: float


@dataclass(frozen=True)
class Grid:
    """A row for each model and a column for each split.

    Attributes:
        score: what is counted: `confidence` or `absolute error`.
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
    """Of one seed: the first that has an oracle, else the first; None when no run kept outputs of
    this kind.
    """
    lead = (summary.task.oracles or summary.task.runs)[0]
    runs = {
        row.method: next((run for run in row.runs if run.label == lead.label), None)
        for row in summary.rows
    }
    scores = {method: _scores(run) for method, run in runs.items() if run is not None}
    kinds = {kind for kind, _ in scores.values() if kind}
    if len(kinds) != 1:
        return None
    splits = tuple(name for name in SPLITS if any(name in found for _, found in scores.values()))
    high = (
        1.0
        if kinds == {"confidence"}
        else _high([values for _, found in scores.values() for values in found.values()])
    )
    paths = {
        (method, name): _steps(values, high)
        for method, (_, found) in scores.items()
        for name, values in found.items()
    }
    rows = []
    for method, (_, found) in scores.items():
        cells = [
            Histogram(paths[method, name], paths.get((ORACLE, name), ""), float(found[name].mean()))
            if name in found
            else None
            for name in splits
        ]
        rows.append((method, cells))
    return Grid(kinds.pop(), high, lead.label, splits, rows)


def _scores(run: RunEntry) -> tuple[str, dict[str, Tensor]]:
    """What is counted, and its values `[N]` by split; empty when the run kept nothing of the
    kind.
    """
    if not (Path(run.folder) / "outputs.safetensors").is_file():
        return "", {}
    outputs = load_outputs(run.folder)
    found: dict[str, Tensor] = {}
    kind = ""
    for name in SPLITS:
        rows = outputs.get(name, {})
        if {"logits", "label"} <= set(rows) and len(rows["label"]):
            kind = "confidence"
            found[name] = (
                rows["logits"]
                .float()
                .softmax(1)
                .gather(1, rows["label"].long()[:, None])
                .squeeze(1)
            )
        elif {"prediction", "target"} <= set(rows) and len(rows["target"]):
            kind = "absolute error"
            found[name] = (rows["prediction"].float() - rows["target"].float()).abs()
    return kind, found


def _high(values: list[Tensor]) -> float:
    """A round number at or above the largest value, so that no sample falls outside."""
    top = max(float(v.max()) for v in values)
    if top <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(top))
    return next(
        step * unit for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * unit >= top * (1 - 1e-6)
    )


def _steps(values: Tensor, high: float) -> str:
    """A closed outline; heights are square roots of shares, so that a few samples are still
    seen.
    """
    share = torch.histc(values.clamp(0, high), bins=BINS, min=0, max=high) / len(values)
    tops = (_HEIGHT * (1 - share.sqrt())).tolist()
    width = 100 / BINS
    return (
        f"M0 {_HEIGHT:g}"
        + "".join(f"V{top:.1f}H{(i + 1) * width:.1f}" for i, top in enumerate(tops))
        + f"V{_HEIGHT:g}Z"
    )
