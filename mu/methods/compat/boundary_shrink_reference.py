"""Boundary Shrink with the labels of the released code: the plain argmax.

At the adversarial sample the argmax is y itself where the attack fails. SalUn's copy also rounds
the adversarial image: `attack=FGSM(epsilon=0.1, round_to_255=True)`, the default here.
"""

from typing import Any

from torch import Tensor

from mu.attacks import FGSM, Attack
from mu.backbones import Classifier
from mu.methods.vision.boundary_shrink import BoundaryShrink


class BoundaryShrinkReference(BoundaryShrink):
    """`BoundaryShrink` that does not filter failed attacks.

    Args:
        backbone: the original.
        attack: finds the neighbour.
    """

    def __init__(self, backbone: Classifier, attack: Attack | None = None, **kwargs: Any) -> None:
        super().__init__(
            backbone,
            attack=FGSM(epsilon=0.1, round_to_255=True) if attack is None else attack,
            **kwargs,
        )

    def nearest(self, logits: Tensor, label: Tensor) -> Tensor:
        """The most probable class, `[B]`."""
        return logits.argmax(1)
