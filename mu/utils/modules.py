"""Copies, eval mode and sharding of torch modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

from mu.utils.errors import InputError

AnyModel = TypeVar("AnyModel", bound=nn.Module)


def separate_copy(backbone: AnyModel, shared: Iterable[nn.Parameter] = ()) -> AnyModel:
    """A deep copy whose weights can take part in autograd, even when it is made inside inference
    mode.

    Args:
        backbone: is not changed.
        shared: parameters of it that the copy uses too, because nobody will move them; all others
            are copied, without their gradients.

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
        raise InputError(
            "this suite reads or alters a whole model on every rank, and the weights are sharded "
            "over ranks; test the run with strategy: auto or ddp."
        )


@contextmanager
def eval_mode(*models: nn.Module) -> Iterator[None]:
    """Eval mode of models for a while (an attack, a pass that gathers statistics); each layer then
    gets its own mode back.
    """
    training = [layer for model in models for layer in model.modules() if layer.training]
    for layer in training:
        layer.training = False
    try:
        yield
    finally:
        for layer in training:
            layer.training = True
