"""What methods share whose forget term is a function of whole answers' likelihoods."""

from typing import Any

import torch
from torch import Tensor

from mu.backbones import CausalLM, WeightedSum
from mu.data.batch import Batch
from mu.methods.bases.forget_retain import ForgetRetainMethod
from mu.methods.components.reference_nll import ReferenceNLL
from mu.methods.components.retain_terms import RetainTerm
from mu.utils.errors import InputError


class SequenceMethod(ForgetRetainMethod):
    """The forget term is a mean over sequences, however many tokens they have.

    Args:
        backbone: the original.
        beta: β > 0, inverse temperature.
        forget_weight: γ > 0.
        retain_weight: α >= 0.
        retain: the retain term; `NLL()` when None.
    """

    def __init__(
        self,
        backbone: CausalLM,
        beta: float,
        forget_weight: float,
        retain_weight: float,
        retain: RetainTerm | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, forget_weight, retain_weight, retain, **kwargs)
        if not beta > 0:
            raise InputError(f"{type(self).__name__} needs a beta above 0, not {beta}.")
        self.beta = beta

    def sequence_loss(self, forget: Batch, prediction: Tensor) -> Tensor:
        """The loss of each sequence, `[B]`."""
        raise TypeError(f"{type(self).__name__} overrides neither sequence_loss() nor objective().")

    def forget_loss(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        values = self.sequence_loss(forget, prediction)
        return values, torch.ones_like(values)

    def forget_total(self, forget: Batch) -> Batch:
        return {**forget, "total": forget["count"]} if "count" in forget else forget


class ReferenceRatioMethod(SequenceMethod):
    """It compares with the likelihoods under the original, which are computed once, before the
    first step.
    """

    def __init__(self, backbone: CausalLM, beta: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(backbone, beta, *args, **kwargs)
        self.reference_nll = ReferenceNLL()

    def on_train_start(self) -> None:
        """Here a checkpoint has been loaded under every strategy (with sharded weights, not yet
        when the fit starts).
        """
        super().on_train_start()
        with self.stopwatch("cache"):
            self.reference_nll.start(self, substitutes=self.needs_substitute)
