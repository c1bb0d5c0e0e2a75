"""DELETE: distil the original with the true class masked out of its prediction.

Zhou et al., "Decoupled Distillation to Erase: A General Unlearning Method for Any Class-centric
Tasks", CVPR 2025.

    q = softmax(f_{θ_o}(x) with the logit of y at −∞),    min_θ E_{x ∈ D_f} KL(q ‖ p_θ(x))

The released code writes −1e10 for −∞, which gives the same numbers. Defaults: SGD 1e-4, momentum
0.9, no weight decay, 20 epochs, batch 128 (CIFAR-10, ResNet-18). Train mode; the code can freeze
batch norm: `norm="eval"`.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from mu import functional
from mu.backbones import Classifier
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Forget


class DELETE(UnlearningModule):
    """Follow the original's opinion about the wrong classes, on forget samples only.

    Args:
        backbone: the original.
        optimizer: optimizer factory; for the source of the default see above.
    """

    default_epochs = 20
    plan = Forget()
    needs_retain = False
    needs_reference = True

    def __init__(
        self,
        backbone: Classifier,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=1e-4, momentum=0.9
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None and self.reference is not None
        with torch.no_grad():
            target = functional.delete_target(self.reference.predict(forget), forget["label"])
        return {
            "forget": self.mean(
                functional.kl_from_probabilities(self.backbone.predict(forget), target), forget
            )
        }
