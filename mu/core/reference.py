"""The reference: a frozen copy of the original model."""

from __future__ import annotations

from copy import deepcopy

from mu.backbones import Backbone


def frozen_copy(backbone: Backbone, share: bool = True) -> Backbone:
    """A copy in eval mode whose weights take no gradient; frozen weights are shared.

    The reference of a model whose text encoder is trained holds a second text encoder and no second
    UNet, and that of adapters holds second adapters alone. Buffers are copied, because training may
    change them in frozen layers too.

    Args:
        backbone: the original.
        share: whether weights that the backbone does not train are shared; weights that are sharded
            over ranks cannot be.

    The module registers the copy, so that it moves to the module's device, but leaves it out of the
    `state_dict`: it is rebuilt from the original weights, whose hash the checkpoint records.
    """
    shared = {id(p): p for p in backbone.parameters() if share and not p.requires_grad}
    return deepcopy(backbone, shared).eval().requires_grad_(False)
