"""Boundary Expand as SalUn's copy evaluates it, with C + 1 classes at test.

The phantom class stays, so it may be the predicted one.
"""

from torch import Tensor, nn

from mu.backbones import Backbone, Classifier
from mu.methods.vision.boundary_expand import BoundaryExpand, expanded


class BoundaryExpandReference(BoundaryExpand):
    """`BoundaryExpand` that serves the expanded classifier."""

    def served(self) -> Backbone:
        """A classifier with C + 1 classes; it shares the weights of backbone and extra unit."""
        network = _Expanded(self.backbone, self.extra)
        return Classifier(network=network, num_classes=self.num_classes + 1).train(
            self.backbone.training
        )


class _Expanded(nn.Module):
    """Pixels to C + 1 logits."""

    def __init__(self, backbone: Backbone, extra: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.extra = extra

    def forward(self, image: Tensor) -> Tensor:
        with expanded(self.backbone, self.extra):
            return self.backbone.predict({"image": image})
