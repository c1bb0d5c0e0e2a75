"""Copies of a model that may be altered while the model itself is left as it is."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from mu.errors import InputError

if TYPE_CHECKING:
    from mu.backbones import Backbone

AnyBackbone = TypeVar("AnyBackbone", bound="Backbone")


def separate_copy(backbone: AnyBackbone, shared: Iterable[nn.Parameter] = ()) -> AnyBackbone:
    """A deep copy whose weights can take part in autograd, even when it is made inside inference mode.

    Args:
        backbone: is not changed.
        shared: parameters of it that the copy uses too, because nobody will move them; all others are copied, without their gradients.

    Raises:
        InputError: when the weights are sharded over ranks, and so cannot be copied whole.
    """
    check_whole(backbone)
    with torch.inference_mode(False):
        return deepcopy(backbone, {id(weight): weight for weight in shared})


def check_whole(backbone: nn.Module) -> None:
    """Refuse weights that are sharded over ranks.

    Raises:
        InputError: says what to do.
    """
    from torch.distributed.tensor import DTensor

    if any(isinstance(weight, DTensor) for weight in backbone.parameters()):
        raise InputError("this suite reads or alters a whole model on every rank, and the weights are sharded over ranks; test the run "
                         "with strategy: auto or ddp.")
