"""What methods share that add a term on forget and one on retain."""

from typing import Any

import torch
from torch import Tensor

from mu.backbones import Backbone, CausalLM, WeightedSum
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Forget, Paired
from mu.methods.bases.joint import predictions
from mu.methods.components.retain_terms import NLL, RetainTerm
from mu.utils.errors import InputError


class ForgetRetainMethod(UnlearningModule):
    """γ times a loss on forget, plus α times a retain term; without the latter, forget alone is
    shown.

    An epoch goes once over forget; every step shows as much of retain beside it.

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
        """The backbone, by its own type."""
        assert isinstance(self.backbone, CausalLM)
        return self.backbone

    @property
    def needs_retain(self) -> bool:  # type: ignore[override]
        """Whether the retain term has a weight."""
        return self.retain_weight > 0

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        """Where the retain term asks the original."""
        return self.needs_retain and self.retain.needs_reference

    def forget_loss(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        """The method's loss `(sum [B], weight [B])` of the forget part, whose logits may be wider
        than it.
        """
        raise TypeError(f"{type(self).__name__} does not override forget_loss().")

    def forget_total(self, forget: Batch) -> Batch:
        """The forget part as `reduce` is to see it, where not all labelled tokens count."""
        return forget

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        of_forget, *of_retain = predictions(
            self.backbone, forget, *([] if retain is None else [retain])
        )
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
