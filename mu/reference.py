"""The frozen original, as the method sees it."""

from __future__ import annotations

from copy import deepcopy

from mu.backbones import Backbone


def frozen_copy(backbone: Backbone) -> Backbone:
    """A deep copy in eval mode whose weights take no gradient.

    The module registers it, so that it moves to the module's device, but leaves it out of the `state_dict`: it is rebuilt from the
    original weights, whose hash the checkpoint records.
    """
    return deepcopy(backbone).eval().requires_grad_(False)
