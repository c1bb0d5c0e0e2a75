"""Backbones: a model and its domain's meaning of loss, prediction, divergence and substitute."""

from mu.backbones.base import Backbone, Batch, Summed
from mu.backbones.classifier import Classifier
from mu.backbones.composed import Ensemble
from mu.backbones.regressor import Regressor

__all__ = ["Backbone", "Batch", "Classifier", "Ensemble", "Regressor", "Summed"]
