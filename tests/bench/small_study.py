"""Smallest study from end to end, as a file: digits, a narrow ResNet, two methods."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import yaml

from mu.metrics.run_results import RunResults

STUDY: dict[str, Any] = {
    "seeds": [0],
    "backbone": {
        "class_path": "mu.backbones.Classifier",
        "init_args": {
            "name": "resnet8_cifar",
            "in_channels": 1,
            "mean": [0.3],
            "std": [0.4],
            "options": {"width": 4},
        },
    },
    "recipe": {
        "model": {"scheduler": {"class_path": "mu.core.OneCycle"}},
        "trainer": {"max_epochs": 2},
    },
    "tasks": {
        "random": {
            "class_path": "tasks.Digits",
            "init_args": {
                "train_size": 60,
                "validation_size": 40,
                "selector": {"class_path": "tasks.RandomFraction", "init_args": {"fraction": 0.2}},
            },
        }
    },
    "methods": {
        "FineTune": {"model": {"class_path": "mu.methods.FineTune"}, "trainer": {"max_epochs": 2}},
        "SSD": {"model": {"class_path": "mu.methods.SSD"}, "trainer": {"max_epochs": 1}},
    },
    "suites": ["callbacks.Accuracy", "callbacks.Membership", "callbacks.Cost"],
    "gap": {"class_path": "callbacks.RetrainGap"},
    "trainer": {"accelerator": "cpu"},
    "threads": 1,
}


def written(folder: Path, **changes: Any) -> Path:
    """File of the study with other entries; it writes into `FOLDER/out`."""
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "output": str(folder / "out"), **changes}))
    return file


def record(folder: Path, method: str) -> RunResults:
    """Results of a method."""
    return RunResults.load(next((folder / "out" / "random" / method).iterdir()))


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of results.csv by method."""
    with (folder / "out" / "results.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def numbers_of(folder: Path) -> list[dict[str, str]]:
    """Rows of results.csv without what it cost: seconds, and memory of the process."""
    with (folder / "out" / "results.csv").open() as file:
        return [
            {
                name: value
                for name, value in row.items()
                if "seconds" not in name and name != "peak_memory"
            }
            for row in csv.DictReader(file)
        ]
