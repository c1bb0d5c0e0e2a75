"""Fisher forgetting as the OPTML code computes it (`fisher_new` of Unlearn-Sparse and SalUn).

    F = mean over batches of Σ_y (mean_b p(y|x_b)) (∇ mean_b ℓ(x_b, y))²,   batches of 32

Squares of batch-mean gradients are another scale than per-sample squares, so its α (about 1e-9 for
random samples) is not the paper's. When a class is forgotten, its row's variance 1e-4 is multiplied
by the classifier's factor 10.
"""

from typing import Any

import torch

from mu.backbones import Classifier
from mu.data.batch import Batch
from mu.methods.vision.fisher_forgetting import FisherForgetting


class FisherForgettingReference(FisherForgetting):
    """`FisherForgetting` with batch-mean gradients.

    Args:
        backbone: the original.
        batch_size: samples of one gradient; F depends on it.
        row_variance: variance of the noise in the forgotten class's row.
    """

    shard = "batches"

    def __init__(
        self, backbone: Classifier, batch_size: int = 32, row_variance: float = 1e-3, **kwargs: Any
    ) -> None:
        super().__init__(backbone, batch_size=batch_size, row_variance=row_variance, **kwargs)

    def observe(self, forget: Batch | None, retain: Batch | None) -> None:
        """Add the squares of one batch's mean gradients, one for each class."""
        assert retain is not None
        log_p = self.backbone.predict(retain).log_softmax(1)
        share = log_p.detach().exp().mean(0).sqrt()
        weights = [p for _, p in self.trainable()]
        total = [torch.zeros_like(p) for p in weights]
        for weighted in share * log_p.mean(0):
            gradient = torch.autograd.grad(
                weighted, weights, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            torch._foreach_addcmul_(total, gradient, gradient)
        self.squares.add(total)
