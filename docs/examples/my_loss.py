"""Hinge on the forget loss: a sample is pushed until its loss reaches a margin."""

from typing import Any

from torch import Tensor

from mu.backbones import Backbone, WeightedSum
from mu.data import Batch
from mu.methods.bases import ForgetRetainMethod


def hinge(nll: Tensor, margin: float) -> Tensor:
    """`max(0, margin − nll)` of each example, `[B]`.

    Example:
        >>> hinge(torch.tensor([0.5, 3.0]), margin=2.0)
        tensor([1.5000, 0.0000])
    """
    return (margin - nll).clamp_min(0)


class HingeUnlearning(ForgetRetainMethod):
    """γ times the hinge on forget, plus α times a retain term.

    Args:
        backbone: the original.
        margin: loss in nats above which a forget sample is left alone.
        forget_weight: γ > 0.
        retain_weight: α >= 0; 0 shows no retain part.
    """

    def __init__(
        self,
        backbone: Backbone,
        margin: float = 2.0,
        forget_weight: float = 1.0,
        retain_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, forget_weight, retain_weight, **kwargs)
        self.margin = margin

    def forget_loss(self, forget: Batch, prediction: Tensor) -> WeightedSum:
        """The hinge and the weight of each example."""
        loss, weight = self.backbone.loss(forget, prediction=prediction)
        return hinge(loss, self.margin), weight
