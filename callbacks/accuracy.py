"""Accuracy of classifiers (UA, RA, TA) and errors of regressors (MAE, RMSE)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import ClassVar

from callbacks.base import Evaluated, Suite
from mu.core.module import UnlearningModule
from mu.metrics import classification, regression
from mu.metrics.rates import Rate
from mu.metrics.results import Result, TradeOff, compute_result


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

        def result(
            metric: str, split: str, accuracy: Callable[..., float] = classification.accuracy
        ) -> Result:
            rows = self.rows(outputs, split)

            def share() -> Rate:
                size = len(rows["label"])
                return Rate(accuracy(rows["logits"], rows["label"]), size, size)

            return compute_result(metric, share, None, split, "%")

        further = sorted(set(outputs) - {"forget", "retain", self.held_out})
        return [
            result("UA", "forget", classification.unlearning_accuracy),
            result("RA", "retain"),
            result("TA", self.held_out),
            *(result(f"accuracy/{split}", split) for split in further),
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
        errors = {
            "MAE": regression.mean_absolute_error,
            "RMSE": regression.root_mean_squared_error,
        }
        return [
            compute_result(
                f"{name}/{split}",
                functools.partial(error, rows["prediction"], rows["target"]),
                None,
                split,
            )
            for split, rows in sorted(outputs.items())
            for name, error in errors.items()
        ]
