"""Boundary Expand (BE): move the forget samples to an extra class, then drop that class.

Chen, Gao, Liu, Peng and Wang, "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting
the Decision Boundary", CVPR 2023, arXiv 2303.11570.

    f⁺ = f with one more output unit;   min ℓ(f⁺(x), C) over D_f;   then the extra unit is dropped

The extra unit is a separate module, so that the evaluated, saved and exported model always has C
classes. SalUn's copy keeps the extra class in evaluation:
`mu.methods.compat.BoundaryExpandReference`. Defaults: SGD 1e-5, momentum 0.9, no weight decay, 10
epochs, batch 64 (the authors' code). OPTML searches the learning rate from 1e-8 upward. Batch-norm
statistics are updated on forget samples only, so try `norm="eval"`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from mu import functional
from mu.backbones import Backbone, Classifier
from mu.backbones.vision.layers import head
from mu.core.module import UnlearningModule
from mu.data.batch import Batch
from mu.data.plan import Forget


class BoundaryExpand(UnlearningModule):
    """Train with a phantom class for the forget samples.

    Args:
        backbone: the original; its network ends in one linear layer.
        optimizer: optimizer factory; for the source of the default see above. It trains
            the backbone and the extra unit.
    """

    plan = Forget()
    needs_retain = False
    needs_labels = False

    def __init__(
        self,
        backbone: Classifier,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=1e-5, momentum=0.9
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        self.num_classes = backbone.num_classes
        _, linear = head(backbone.network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.extra = nn.Linear(linear.in_features, 1).to(linear.weight)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The backbone's weights, and those of the extra unit."""
        return [
            *super().trainable(),
            *((f"extra.{name}", p) for name, p in self.extra.named_parameters()),
        ]

    def objective(self, forget: Batch | None, retain: Batch | None) -> dict[str, Tensor]:
        assert forget is not None
        with expanded(self.backbone, self.extra):
            logits = self.backbone.predict(forget)
        phantom = torch.full((len(logits),), self.num_classes, device=logits.device)
        return {"forget": self.mean(functional.cross_entropy(logits, phantom), forget)}


@contextmanager
def expanded(backbone: Backbone, extra: nn.Linear) -> Iterator[None]:
    """The backbone predicts `[B, C + 1]` for a while: its head and the extra unit, on one input."""
    _, linear = head(backbone.network)  # type: ignore[arg-type]

    def append(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.cat([output, extra(given[0])], dim=1)

    handle = linear.register_forward_hook(append)
    try:
        yield
    finally:
        handle.remove()
