"""Base classes of attacks and success criteria."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mu import functional
from mu.backbones import Backbone
from mu.data.batch import Batch
from mu.utils.errors import InputError
from mu.utils.modules import eval_mode
from mu.utils.spec import Reconstructible


@dataclass(frozen=True)
class AttackResult:
    """Result of an attack on a batch.

    Attributes:
        adversarial: batch with changed input, and otherwise unchanged.
        success: `[B]` bool, by the attack's criterion; False for padded rows.
        prediction: the backbone's prediction on `adversarial`, first dimension B, without gradient.
    """

    adversarial: dict[str, Any]
    success: Tensor
    prediction: Tensor


class Criterion(Reconstructible, ABC):
    """Success criterion of an attack, with the objective that the attack increases."""

    @abstractmethod
    def objective(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Objective `[B]`, differentiable in the prediction; the attack increases it."""

    @abstractmethod
    def met(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Mask of the samples on which the attack succeeded, `[B]` bool."""


class Misclassified(Criterion):
    """Untargeted criterion: a prediction other than `label`, by increasing its cross-entropy."""

    def objective(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy to `label`, `[B]`, in nats."""
        return functional.cross_entropy(prediction, batch["label"])

    def met(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Mask of the samples whose largest logit is not the label's, `[B]` bool."""
        return prediction.argmax(1) != batch["label"]


class Targeted(Criterion):
    """Targeted criterion: prediction of a given class, by decreasing its cross-entropy.

    Args:
        label: the class for every sample; None takes each sample's `substitute`.
    """

    def __init__(self, label: int | None = None) -> None:
        if label is not None and label < 0:
            raise InputError(f"there is no class {label}; classes are numbered from 0.")
        self.label = label

    def _target(self, prediction: Tensor, batch: Batch) -> Tensor:
        if self.label is not None:
            return torch.full(
                (len(prediction),), self.label, dtype=torch.int64, device=prediction.device
            )
        if "substitute" not in batch:
            raise InputError(
                "a targeted attack takes each sample's target from `substitute`, which the batch "
                "lacks; give label=."
            )
        return batch["substitute"]

    def objective(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Minus the cross-entropy to the target, `[B]`, in nats."""
        return -functional.cross_entropy(prediction, self._target(prediction, batch))

    def met(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Mask of the samples whose largest logit is the target's, `[B]` bool."""
        return prediction.argmax(1) == self._target(prediction, batch)


class Attack(Reconstructible, ABC):
    """Base of attacks that change a model's input until a criterion is met.

    An attack works inside `trainer.test` (inference mode) and inside a training step. The backbone
    is attacked in eval mode; its weights, their gradients and the mode of each of its layers stay
    unchanged.
    """

    def __call__(self, backbone: Backbone, batch: Batch, criterion: Criterion) -> AttackResult:
        """Attack each sample of a batch.

        Args:
            backbone: model of `served()`, or a frozen reference.
            batch: a part of the task; not changed.
            criterion: success criterion.

        Returns:
            New tensors on the batch's device, without gradient.
        """
        with eval_mode(backbone), torch.inference_mode(False), torch.enable_grad():
            # a tensor made under inference mode cannot take part in autograd; its copy can
            cloned = {
                name: value.detach().clone() if isinstance(value, Tensor) else value
                for name, value in batch.items()
            }
            result = self.run(backbone, cloned, criterion)
        return result

    @abstractmethod
    def run(self, backbone: Backbone, batch: dict[str, Any], criterion: Criterion) -> AttackResult:
        """Attack a copied batch, with gradients enabled and the backbone in eval mode."""

    def judged(
        self, backbone: Backbone, batch: dict[str, Any], criterion: Criterion
    ) -> AttackResult:
        """Prediction and success on the adversarial `batch`, as a result."""
        with torch.no_grad():
            prediction = backbone.predict(batch)
            success = criterion.met(prediction, batch)
        if "padded" in batch:
            success = success & ~batch["padded"]
        return AttackResult(batch, success, prediction)
