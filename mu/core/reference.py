"""The frozen original, as the method sees it."""

from __future__ import annotations

from copy import deepcopy

from mu.backbones import Backbone


def frozen_copy(backbone: Backbone, share: bool = True) -> Backbone:
    """A copy in eval mode whose weights take no gradient; weights that the backbone does not train
    are shared, not copied.

    So the reference of a model of which a text encoder is trained holds a second text encoder and
    no second UNet, and that of adapters holds second adapters alone. Buffers move in training
    whatever is frozen, so they are copied.

    Args:
        backbone: the original.
        share: whether to share; a weight that is sharded over ranks belongs to one model alone.

    The module registers the copy, so that it moves to the module's device, but leaves it out of the
    `state_dict`: it is rebuilt from the original weights, whose hash the checkpoint records.
    """
    shared = {id(p): p for p in backbone.parameters() if share and not p.requires_grad}
    return deepcopy(backbone, shared).eval().requires_grad_(False)
