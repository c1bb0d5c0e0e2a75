"""Backbones: a model and its domain's meaning of loss, prediction, divergence and substitute."""

from mu.backbones.autoencoder import Autoencoder
from mu.backbones.base import Backbone, Batch, Summed
from mu.backbones.causal_lm import CausalLM
from mu.backbones.class_conditional import ClassConditionalDiffusion
from mu.backbones.classifier import Classifier
from mu.backbones.composed import Ensemble
from mu.backbones.conditions import Condition
from mu.backbones.diffusion import Diffusion
from mu.backbones.logit_difference import GenericLogits, LogitDifference
from mu.backbones.lora import LoRA
from mu.backbones.regressor import Regressor
from mu.backbones.text_to_image import TextToImage

__all__ = [
    "Autoencoder",
    "Backbone",
    "Batch",
    "CausalLM",
    "ClassConditionalDiffusion",
    "Classifier",
    "Condition",
    "Diffusion",
    "Ensemble",
    "GenericLogits",
    "LoRA",
    "LogitDifference",
    "Regressor",
    "Summed",
    "TextToImage",
]
