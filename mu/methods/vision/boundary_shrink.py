"""Boundary Shrink (BS): fit forget samples to the class across the nearest decision boundary.

Chen, Gao, Liu, Peng and Wang, "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting
the Decision Boundary", CVPR 2023, arXiv 2303.11570.

    x' = clip(x + ε sign ∇_x ℓ(f_{θ_o}(x), y), 0, 1)
    y' = the nearest wrong label, argmax_{k ≠ y} f_{θ_o}(x')_k
    min_θ ℓ(f_θ(D_f), y')

In the paper y' is the nearest but *incorrect* label. The released code takes the plain argmax,
which is y itself where the attack fails, and SalUn's copy rounds x' to 1/255:
`mu.methods.compat.BoundaryShrinkReference`. Defaults: ε = 0.1; SGD 1e-5, momentum 0.9, no weight
decay, 10 epochs, batch 64 (the authors' code). OPTML searches the learning rate from 1e-8 upward.
Batch-norm statistics are updated on forget samples only, so try `norm="eval"`.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu.attacks import FGSM, Attack, Misclassified
from mu.backbones import Classifier
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Forget


class BoundaryShrink(UnlearningModule):
    """Fit the forget samples to the labels that the original gives to their adversarial neighbours.

    Args:
        backbone: the original.
        optimizer: optimizer factory; for the source of the default see above.
        attack: finds the neighbour; None is FGSM with ε = 0.1.
    """

    plan = Forget()
    needs_retain = False
    needs_reference = True

    def __init__(
        self,
        backbone: Classifier,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=1e-5, momentum=0.9
        ),
        attack: Attack | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        self.attack = FGSM(epsilon=0.1) if attack is None else attack

    def nearest(self, logits: Tensor, label: Tensor) -> Tensor:
        """The most probable wrong class `[B]` of adversarial samples with logits `[B, C]`."""
        return logits.scatter(1, label[:, None], -torch.inf).argmax(1)

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and self.reference is not None
        neighbour = self.attack(self.reference, forget, Misclassified())
        target = self.nearest(neighbour.prediction, forget["label"])
        return {"forget": self.reduce(self.backbone.substitute_loss(forget, target=target), forget)}
