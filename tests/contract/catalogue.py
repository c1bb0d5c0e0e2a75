"""Every method there is, and the smallest setting in which it does something.

Methods are found by walking `mu.methods`; a method that is not in `SETTINGS` is tested with its
defaults. Settings are only for what tiny models and two epochs need otherwise: a threshold that
selects some of 5,000 weights, a rate at which ten steps show.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

import mu.methods
import tasks
from mu.backbones import (
    Backbone,
    CausalLM,
    ClassConditionalDiffusion,
    Classifier,
    LoRA,
    Regressor,
    TextToImage,
)
from mu.core.edit import Edit
from mu.core.module import UnlearningModule
from mu.core.needs import backbone_types
from mu.data.datamodule import UnlearningDataModule
from mu.methods.components.answers import AnswerOfAnotherQuestion
from mu.methods.components.substitutes import GaussianTarget, GivenByTask
from tests.support.doubles import class_conditional, digit_pictures, pictures, text_to_image
from tests.support.doubles_text import causal_lm, mixture, people
from tests.support.helpers import EPOCHS, State, classifier, diabetes, digits, fit, regressor

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """How one method is run in the contract tests.

    Attributes:
        arguments: of the constructor, made anew for each run.
        by_backbone: further arguments on one backbone.
        epochs: of a run.
        task: arguments of the task, for methods that forget whole classes.
        unseeded: backbones on which the method neither shuffles nor draws, so that it is
            the same under all seeds.
        backbones: those that it is defined for, where the annotation admits more.
    """

    arguments: Callable[[], Arguments] = dict
    by_backbone: Mapping[str, Callable[[], Arguments]] = field(default_factory=dict)
    epochs: int = EPOCHS
    task: Arguments = field(default_factory=dict)
    unseeded: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()


def _gaussian() -> Arguments:
    return {"substitute": GaussianTarget()}


def _conv_linear() -> Arguments:
    from mu.methods import Pruned

    return {"mask": Pruned(scope="conv_linear", rate=0.5)}


SETTINGS: dict[str, Setting] = {
    "Blindspot": Setting(lambda: {"proxy_epochs": 1}),
    "CFk": Setting(
        backbones=("classifier", "regressor", "causal_lm", "mixture")
    ),  # a network with a first and a last layer
    "EUk": Setting(backbones=("classifier", "regressor", "causal_lm", "mixture")),
    "FisherForgetting": Setting(lambda: {"batch_size": 10}, epochs=1),
    "FisherForgettingReference": Setting(lambda: {"batch_size": 10}, epochs=1),
    "InfluenceReference": Setting(
        epochs=1, unseeded=("classifier", "regressor", "causal_lm", "mixture")
    ),  # diffusion draws t and noise
    # the dual variable is to move within two epochs
    "PDU": Setting(lambda: {"dual_warmup_epochs": 0}),
    "PDUReference": Setting(lambda: {"dual_warmup_epochs": 0}),
    "PruneFineTune": Setting(
        by_backbone=dict.fromkeys(("regressor", "causal_lm", "mixture"), _conv_linear)
    ),
    "RandomLabel": Setting(by_backbone={"regressor": _gaussian}),
    "SalUn": Setting(by_backbone={"regressor": _gaussian}),
    "SalUnSoft": Setting(by_backbone={"regressor": _gaussian}),
    # at its own rate of 5e-4 the student stays where it was, and going back to the original is the
    # right answer
    "SCRUBRewind": Setting(
        lambda: {
            "optimizer": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
            "alpha": 1.0,
            "msteps": 1,
        }
    ),
    # one epoch shows forget alone, the next retain alone
    "SCRUBWorstCase": Setting(lambda: {"msteps": 0}),
    "SSD": Setting(
        lambda: {"alpha": 1.0, "forget_batch_size": 10, "all_batch_size": 10},
        epochs=1,
        unseeded=("classifier", "regressor", "causal_lm", "mixture"),
    ),
    "UCE": Setting(epochs=1, unseeded=("text_to_image",)),
    "ULD": Setting(
        lambda: {"lora": LoRA(r=2, lora_dropout=0.0)}
    ),  # dropout is outside the promise about ranks
    "UNSIR": Setting(
        lambda: {"noise_size": 8, "noise_steps": 3}, task={"selector": tasks.ByClass([3, 5])}
    ),
    "WHP": Setting(lambda: {"reinforce_epochs": 1, "reinforce_lr": 0.01}),
}

BACKBONES: dict[
    str, tuple[type[Backbone], Callable[..., Backbone], Callable[..., UnlearningDataModule]]
] = {
    "classifier": (Classifier, classifier, digits),
    "regressor": (Regressor, regressor, diabetes),
    "text_to_image": (TextToImage, text_to_image, pictures),
    "class_conditional": (ClassConditionalDiffusion, class_conditional, digit_pictures),
    "causal_lm": (CausalLM, causal_lm, people),
    "mixture": (CausalLM, mixture, people),
}
DIFFUSION = ("text_to_image", "class_conditional")
TEXT = ("causal_lm", "mixture")
WORDS = {
    "classifier": "linear",
    "regressor": "network.2",
    "text_to_image": "attn2",
    "class_conditional": "attentions",
    "causal_lm": "mlp",
    "mixture": "mlp",
}
"""Part of the names of some weights of each backbone."""
OWN_WORDS = {"ULD": "v_proj"}
"""The same for methods that train another model than the backbone."""


def methods() -> dict[str, type[UnlearningModule]]:
    """Every concrete method of `mu.methods`, by its name."""
    classes: dict[str, type[UnlearningModule]] = {}
    for module in pkgutil.walk_packages(mu.methods.__path__, "mu.methods."):
        for name, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            concrete = (
                cls.__module__ == module.name
                and not module.name.startswith("mu.methods.bases")
                and issubclass(cls, UnlearningModule)
                and not name.startswith("_")
            )
            if concrete and not inspect.isabstract(cls):
                assert name not in classes, f"two methods are called {name}"
                classes[name] = cls
    return dict(sorted(classes.items()))


METHODS = methods()


def setting(name: str) -> Setting:
    """The method's setting, or its defaults."""
    return SETTINGS.get(name, Setting(epochs=1) if issubclass(METHODS[name], Edit) else Setting())


def admitted_backbones(name: str) -> list[str]:
    """Kinds of backbones that the constructor's annotation admits and that there are tiny ones
    of.
    """
    return [
        backbone_name
        for backbone_name, (cls, _, _) in BACKBONES.items()
        if issubclass(cls, backbone_types(METHODS[name]))
        and (not setting(name).backbones or backbone_name in setting(name).backbones)
    ]


PAIRS = [(name, backbone_name) for name in METHODS for backbone_name in admitted_backbones(name)]
FIRST = [(name, admitted_backbones(name)[0]) for name in METHODS if admitted_backbones(name)]
"""Each method on its first backbone: the part that `make test` runs."""


def constructor(name: str) -> set[str]:
    """Names of all the arguments that a method takes, along its bases."""
    names: set[str] = set()
    for cls in METHODS[name].__mro__:
        if "__init__" in cls.__dict__ and issubclass(cls, torch.nn.Module):
            parameters = inspect.signature(cls.__init__).parameters
            names |= set(parameters)
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                break
    return names


@dataclass
class Case:
    """One method on one backbone, ready to be run any number of times.

    Attributes:
        name: of the method.
        backbone_name: key of `BACKBONES`.
        state: weights of the original.
    """

    name: str
    backbone_name: str
    state: State

    def backbone(self) -> Backbone:
        """The original."""
        return BACKBONES[self.backbone_name][1](self.state)

    def task(self, **changes: Any) -> UnlearningDataModule:
        """A new task for the backbone."""
        return BACKBONES[self.backbone_name][2](**{**setting(self.name).task, **changes})

    def make(self, **changes: Any) -> UnlearningModule:
        """The method around a new copy of the original."""
        chosen = setting(self.name)
        arguments = {
            **chosen.arguments(),
            **chosen.by_backbone.get(self.backbone_name, dict)(),
            **changes,
        }
        if (
            self.backbone_name == "regressor"
            and "optimizer" in inspect.signature(METHODS[self.name].__init__).parameters
        ):
            # rates of the image papers are far too high for targets in the hundreds
            arguments.setdefault(
                "optimizer",
                lambda params: torch.optim.SGD(params, lr=1e-4, momentum=0.9, weight_decay=5e-4),
            )
        if self.backbone_name == "text_to_image" and "substitute" in constructor(self.name):
            arguments.setdefault("substitute", GivenByTask())  # there are no labels to draw
        if (
            self.backbone_name in TEXT
            and METHODS[self.name].needs_substitute is True
            and "substitute" in constructor(self.name)
        ):
            arguments.setdefault("substitute", AnswerOfAnotherQuestion())
        return METHODS[self.name](self.backbone(), **arguments)

    def run(
        self,
        seed: int = 0,
        task: UnlearningDataModule | None = None,
        arguments: Arguments | None = None,
        **changes: Any,
    ) -> UnlearningModule:
        """Fit a new module on a new task."""
        epochs = changes.pop("epochs", setting(self.name).epochs)
        return fit(
            self.make(seed=seed, **(arguments or {})), task or self.task(), epochs, **changes
        )
