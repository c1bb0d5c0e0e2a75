"""Accuracy of classifiers (UA, RA, TA) and errors of regressors (MAE, RMSE)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from callbacks.base import Evaluated, Suite
from mu.core.module import UnlearningModule
from mu.metrics import classification, regression
from mu.metrics.results import Result, TradeOff


class Accuracy(Suite):
    """Unlearning, retain and test accuracy of a classifier, in percent.

    UA = 100 − accuracy on forget, RA = accuracy on retain, TA = accuracy on held-out data. Where a
    whole class is forgotten, it is not in the held-out part (vision literature), and the probe
    `test_forget` is reported apart.

    Args:
        held_out: part for TA; `validation` in searches.
    """

    needs = ("logits", "label")

    definitions: ClassVar[Mapping[str, str]] = {
        "UA": "Unlearning accuracy: 100 − accuracy on the forget set, in percent.",
        "RA": "Retain accuracy: accuracy on the training samples that stay, in percent.",
        "TA": "Test accuracy: accuracy on held-out samples (without a class that is forgotten as a "
        "whole), in percent.",
        "accuracy/": "Accuracy on another part of the data, in percent.",
    }
    trade_offs = (
        TradeOff(
            "Forgetting and utility",
            ("UA",),
            ("RA", "TA"),
            "UA: error on the forget set",
            "utility: mean of RA and TA",
        ),
    )

    def __init__(self, held_out: str = "test") -> None:
        self.held_out = held_out

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """UA, RA, TA, and the accuracy on every other part."""

        def accuracy(split: str) -> float:
            rows = self.rows(outputs, split)
            return float(classification.accuracy(rows["logits"], rows["label"]))

        further = sorted(set(outputs) - {"forget", "retain", self.held_out})
        return [
            Result("UA", 100 - accuracy("forget"), None, "forget", "%"),
            Result("RA", accuracy("retain"), None, "retain", "%"),
            Result("TA", accuracy(self.held_out), None, self.held_out, "%"),
            *(Result(f"accuracy/{split}", accuracy(split), None, split, "%") for split in further),
        ]


class Errors(Suite):
    """Mean absolute and root mean squared error of a regressor on every part.

    Errors are in the target's units.

    Args:
        held_out: part of the metric `test_error` in tables.
    """

    needs = ("prediction", "target")

    definitions: ClassVar[Mapping[str, str]] = {
        "MAE/": "Mean absolute error on that part, in the target's units.",
        "RMSE/": "Root mean squared error on that part, in the target's units.",
    }
    headline = ("MAE/forget", "MAE/retain", "MAE/test", "MAE/validation", "MAE/")

    def __init__(self, held_out: str = "test") -> None:
        self.held_out = held_out

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """`MAE/split` and `RMSE/split`."""
        results = []
        for split, rows in sorted(outputs.items()):
            errors = {
                "MAE": regression.mean_absolute_error(rows["prediction"], rows["target"]),
                "RMSE": regression.root_mean_squared_error(rows["prediction"], rows["target"]),
            }
            results += [
                Result(f"{name}/{split}", float(error), None, split)
                for name, error in errors.items()
            ]
        return results
