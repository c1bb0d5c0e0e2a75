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
    from callbacks.memorisation import Memorisation
    from callbacks.probes import LinearProbe, LogitLens
    from callbacks.quality import ImageQuality
    from callbacks.quantisation import Quantisation
    from callbacks.recorder import Recorder
    from callbacks.reintroduction import Reintroduction
    from callbacks.relearning import Relearning
    from callbacks.retrain_gap import RetrainGap
    from callbacks.robustness import Robustness
    from callbacks.text_examples import TextExamples
    from callbacks.tofu import TOFU

_HOME = {
    "Accuracy": "accuracy",
    "ConceptErasure": "concepts",
    "Cost": "cost",
    "Curves": "curves",
    "Errors": "accuracy",
    "Grids": "grids",
    "ImageQuality": "quality",
    "LinearProbe": "probes",
    "LogitLens": "probes",
    "Membership": "membership",
    "Memorisation": "memorisation",
    "Quantisation": "quantisation",
    "Recorder": "recorder",
    "RegressionMembership": "membership",
    "Reintroduction": "reintroduction",
    "Relearning": "relearning",
    "RetrainGap": "retrain_gap",
    "Robustness": "robustness",
    "Suite": "base",
    "TOFU": "tofu",
    "TextExamples": "text_examples",
}
__all__ = [
    "TOFU",
    "Accuracy",
    "ConceptErasure",
    "Cost",
    "Curves",
    "Errors",
    "Grids",
    "ImageQuality",
    "LinearProbe",
    "LogitLens",
    "Membership",
    "Memorisation",
    "Quantisation",
    "Recorder",
    "RegressionMembership",
    "Reintroduction",
    "Relearning",
    "RetrainGap",
    "Robustness",
    "Suite",
    "TextExamples",
]

default_callbacks = ["callbacks.Recorder", "callbacks.Curves"]
"""Added to every run by the command line and by studies."""


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"callbacks.{_HOME[name]}"), name)
    raise AttributeError(f"module 'callbacks' has no attribute {name!r}")
