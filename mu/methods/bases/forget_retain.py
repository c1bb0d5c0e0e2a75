"""Bases of methods whose objective is γ times a forget loss plus α times a retain term.

`ForgetRetainMethod` holds the objective. `SequenceMethod` narrows its forget loss to a mean over
answers, and `ReferenceRatioMethod` adds the answers' likelihoods under the original.
"""

from typing import Any

import torch
from torch import Tensor

from mu.backbones import Backbone, CausalLM, WeightedSum
from mu.core.module import UnlearningModule
from mu.core.reduction import sample_weighted
from mu.data.batch import Batch
from mu.data.plan import Forget, Paired
from mu.methods.bases.joint import predictions
from mu.methods.components.reference_nll import ReferenceNLL
from mu.methods.components.retain_terms import NLL, RetainTerm
from mu.utils.errors import InputError, MissingMethodError


class ForgetRetainMethod(UnlearningModule):
    """Base of methods that minimise γ L_f + α L_r in one step.

        min_θ γ L_f(θ; D_f) + α L_r(θ; D_r)

    A subclass overrides `forget_loss` with L_f; L_r is the retain term. An epoch goes once over
    forget, and every step sees as many retain samples beside; with α = 0 it sees forget alone.

    Args:
        backbone: the original.
        forget_weight: γ > 0.
        retain_weight: α >= 0.
        retain: the retain term; `NLL()` when None.
    """

    def __init__(
        self,
        backbone: Backbone,
        forget_weight: float,
        retain_weight: float,
        retain: RetainTerm | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if forget_weight <= 0 or retain_weight < 0:
            raise InputError(
                f"{type(self).__name__} needs a forget_weight above 0 and a retain_weight of at "
                f"least 0, not {forget_weight} and {retain_weight}."
            )
        self.forget_weight = forget_weight
        self.retain_weight = retain_weight
        self.retain = NLL() if retain is None else retain
        self.plan = Paired(length="forget") if retain_weight else Forget()

    @property
    def model(self) -> CausalLM:
        """The backbone, by the type CausalLM."""
        assert isinstance(self.backbone, CausalLM)
        return self.backbone

    @property
    def needs_retain(self) -> bool:  # type: ignore[override]
        """Whether the retain term has a weight."""
        return self.retain_weight > 0

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        """Whether a retain term with a weight compares with the original."""
        return self.needs_retain and self.retain.needs_reference

    def forget_loss(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        """The forget loss L_f as `(sum [B], weight [B])`.

        Args:
            forget: the forget part.
            prediction: of the backbone for it, `[B, ...]`; logits of a language model may be of
                more positions than the part, where retain sequences are longer.
        """
        raise MissingMethodError(f"{type(self).__name__} does not override forget_loss().")

    def forget_total(self, forget: Batch) -> Batch:
        """The forget part with the total weight of L_f, where that is not all labelled tokens."""
        return forget

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        parts = [forget] if retain is None else [forget, retain]
        of_forget, *of_retain = predictions(self.backbone, *parts)
        loss = Backbone.count(forget, *self.forget_loss(forget, of_forget))
        terms = {"forget": self.forget_weight * self.reduce(loss, self.forget_total(forget))}
        if retain is not None:
            terms["retain"] = self.retain_weight * self.retain.term(self, retain, of_retain[0])
        return terms

    @torch.no_grad()
    def original_logits(self, part: Batch) -> Tensor:
        """Shifted logits `[B, L − 1, V]` of the frozen original."""
        assert isinstance(self.reference, CausalLM)
        return self.reference.token_logits(part)[0]


class SequenceMethod(ForgetRetainMethod):
    """Base of methods whose forget loss is a mean over answers, however many tokens they have.

    A subclass overrides `sequence_loss`.

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
        """The loss of each forget sequence, `[B]`."""
        raise MissingMethodError(
            f"{type(self).__name__} overrides neither sequence_loss() nor objective()."
        )

    def forget_loss(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        values = self.sequence_loss(forget, prediction)
        return values, torch.ones_like(values)

    def forget_total(self, forget: Batch) -> Batch:
        return sample_weighted(forget)


class ReferenceRatioMethod(SequenceMethod):
    """Base of methods that compare an answer's likelihood with that under the original.

    `reference_nll.value(part)` is the original's −log π(y|x), computed once before the first step.
    """

    def __init__(self, backbone: CausalLM, beta: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(backbone, beta, *args, **kwargs)
        self.reference_nll = ReferenceNLL()

    def on_train_start(self) -> None:
        """Compute the likelihoods under the original, unless a checkpoint brought them.

        With sharded weights, a checkpoint has not yet been loaded when the fit starts.
        """
        super().on_train_start()
        with self.stopwatch("cache"):
            self.reference_nll.start(self, substitutes=self.needs_substitute)
