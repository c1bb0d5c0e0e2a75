"""CF-k: catastrophic forgetting of the last k layers, by fine-tuning them on the retain set.

Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru, "Towards Adversarial Evaluations for Inexact Machine
Unlearning", arXiv 2201.06640.

    min over the last k layers of ℓ(D_r), from θ_o

k counts weight layers (convolutions, linear layers and the like, in the order of their definition,
the convolutions of shortcuts included) from the output: k = 1 is the classifier alone; a norm layer
belongs to the weight layer before it. k = −1 is the whole network, i.e. fine-tuning. All earlier
layers are frozen: they get no gradient, and they run in eval mode, so that their batch-norm
statistics stay fixed (`norm: recalibrate` recomputes all statistics at the end, theirs included).

Other code: corrective-unlearning-bench (same authors) counts k in the same way, but in whole blocks
for wide ResNets and vision transformers. SCRUB's code trains one named block, for ResNets `layer4`
*without* the head: `FineTune(mask=ByName(["layer4"]), norm="eval")`.

Defaults: k = 2; SGD 0.025, momentum 0.9, weight decay 5e-4 (corrective-unlearning-bench, where a
ResNet-9 has k = 2, 4, −1; its learning rate rises for 1 % of the run and falls to a fifth:
`OneCycle(warmup=0.01, start=0, end=0.2)`). SCRUB's code: SGD 0.01 without momentum or weight decay,
10 epochs. The worst-case benchmark: k = 1, 10 epochs.
"""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from mu.backbones import Backbone
from mu.methods.general.finetune import FineTune
from mu.utils.errors import InputError

WHOLE = -1


def last_layers(backbone: Backbone, k: int) -> list[tuple[str, nn.Module]]:
    """Names and modules of the network's last `k` weight layers, as `layers_in_order` has them.

    Raises:
        InputError: the backbone has no single network, or fewer layers than k.
    """
    from mu.backbones.vision.layers import layers_in_order

    network = getattr(backbone, "network", None)
    if not isinstance(network, nn.Module):
        raise InputError(
            f"{type(backbone).__name__} is not one network with a first and a last layer; name "
            "the weights to train by FineTune with mask=ByName([...])."
        )
    layers = layers_in_order(network)
    if k == WHOLE:
        return layers
    if not 1 <= k <= len(layers):
        raise InputError(
            f"k is {k}, but the network has {len(layers)} weight layers; give 1 to {len(layers)}, "
            "or -1 for all."
        )
    return layers[-k:]


class CFk(FineTune):
    """FineTune of the last k layers.

    Args:
        backbone: the original; any with a `network`.
        k: how many weight layers, counted from the output; −1 is all.
        optimizer: optimizer factory; for the source of the default see above.
    """

    def __init__(
        self,
        backbone: Backbone,
        k: int = 2,
        optimizer: OptimizerCallable = lambda params: torch.optim.SGD(
            params, lr=0.025, momentum=0.9, weight_decay=5e-4
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, **kwargs)
        last_layers(backbone, k)  # a wrong k is refused now, not after the data have been read
        self.k = k

    def configure_model(self) -> None:
        """Freeze the prefix before masks and optimizer ask what is trainable."""
        if self.k != WHOLE:
            trained = {
                id(p) for _, layer in last_layers(self.backbone, self.k) for p in layer.parameters()
            }
            for weight in self.backbone.parameters():
                if id(weight) not in trained:
                    weight.requires_grad_(False)
        super().configure_model()

    def set_mode(self) -> None:
        """Eval mode for everything before the last k layers: batch norm and dropout."""
        super().set_mode()
        last = {
            id(module)
            for _, layer in last_layers(self.backbone, self.k)
            for module in layer.modules()
        }
        network: Any = self.backbone.network
        for module in network.modules():
            if id(module) in last:
                break
            if not any(id(inner) in last for inner in module.modules()):
                module.training = False
