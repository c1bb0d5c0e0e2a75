"""Suites and other Lightning callbacks.

The names below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callbacks.accuracy import Accuracy, Errors
    from callbacks.base import Suite
    from callbacks.concepts import ConceptErasure
    from callbacks.cost import Cost
    from callbacks.curves import Curves
    from callbacks.grids import Grids
    from callbacks.membership import Membership, RegressionMembership
    from callbacks.quality import ImageQuality
    from callbacks.recorder import Recorder
    from callbacks.retrain_gap import RetrainGap
    from callbacks.robustness import Robustness

_HOME = {
    "Accuracy": "accuracy", "Errors": "accuracy", "Suite": "base", "ConceptErasure": "concepts", "Cost": "cost", "Curves": "curves",
    "Grids": "grids", "ImageQuality": "quality", "Membership": "membership", "RegressionMembership": "membership", "Recorder": "recorder",
    "RetrainGap": "retrain_gap", "Robustness": "robustness",
}
__all__ = ["Accuracy", "ConceptErasure", "Cost", "Curves", "Errors", "Grids", "ImageQuality", "Membership", "Recorder",
           "RegressionMembership", "RetrainGap", "Robustness", "Suite"]

default_callbacks = ["callbacks.Recorder", "callbacks.Curves"]
"""Added to every run by the command line and by studies."""


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"callbacks.{_HOME[name]}"), name)
    raise AttributeError(f"module 'callbacks' has no attribute {name!r}")
