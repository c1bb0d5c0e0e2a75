"""Copies, eval mode, sharding and buffers of torch modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from mu.utils.errors import InputError

AnyModel = TypeVar("AnyModel", bound=nn.Module)


def separate_copy(backbone: AnyModel, shared: Iterable[nn.Parameter] = ()) -> AnyModel:
    """Deep copy of a model for autograd, also when it is made in inference mode.

    Args:
        backbone: model to copy; not changed.
        shared: parameters that the copy shares with it, because they stay constant; all others are
            copied, without their gradients.

    Raises:
        InputError: when the weights are sharded over ranks.
    """
    check_whole(backbone)
    with torch.inference_mode(False):
        return deepcopy(backbone, {id(weight): weight for weight in shared})


def check_whole(backbone: nn.Module) -> None:
    """Check that the weights of a model are not sharded over ranks.

    Raises:
        InputError: when they are.
    """
    from torch.distributed.tensor import DTensor

    if any(isinstance(weight, DTensor) for weight in backbone.parameters()):
        raise InputError(
            "this suite reads or alters a whole model on every rank, and the weights are sharded "
            "over ranks; test the run with strategy: auto or ddp."
        )


@contextmanager
def eval_mode(*models: nn.Module) -> Iterator[None]:
    """Context in which models are in eval mode; afterwards each layer has its old mode."""
    training = [layer for model in models for layer in model.modules() if layer.training]
    for layer in training:
        layer.training = False
    try:
        yield
    finally:
        for layer in training:
            layer.training = True


@torch.no_grad()
def register_like(
    module: nn.Module,
    prefix: str,
    named: Iterable[tuple[str, Tensor]],
    fill: Callable[[Tensor], Tensor] = torch.zeros_like,
) -> None:
    """Register a buffer for each named tensor, which checkpoints then contain.

    A buffer's name has no dots: weight `conv.bias` gets the buffer `{prefix}conv__bias`.

    Args:
        module: module that gets the buffers.
        prefix: prefix of the buffers' names, which are keys in checkpoints.
        named: names and tensors, as `named_parameters()` yields them.
        fill: function from the tensor to the initial buffer; `torch.clone` copies it.

    Example:
        >>> module = nn.Module()
        >>> register_like(module, "start_of_", nn.Linear(2, 1).named_parameters())
        >>> list(module.state_dict())
        ['start_of_weight', 'start_of_bias']
        >>> buffer_like(module, "start_of_", "bias")
        tensor([0.])
    """
    for name, tensor in named:
        module.register_buffer(_buffer_name(prefix, name), fill(tensor))


def buffer_like(module: nn.Module, prefix: str, name: str) -> Tensor:
    """Buffer that `register_like` registered for the tensor `name`."""
    return module.get_buffer(_buffer_name(prefix, name))


def _buffer_name(prefix: str, name: str) -> str:
    return prefix + name.replace(".", "__")
