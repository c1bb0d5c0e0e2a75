"""Outputs of a network's hidden layers, collected during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from mu.backbones.vision.layers import layers_in_order


def hidden_layers(network: nn.Module) -> list[str]:
    """Names of a network's nonlinearities, in the order of `named_modules`.

    Where no nonlinearity is a module, the names of all weight layers but the last.

    Example:
        >>> hidden_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        ['1']
    """
    nonlinearities = [
        name
        for name, layer in network.named_modules()
        if type(layer).__module__ == "torch.nn.modules.activation"
        and not isinstance(layer, nn.MultiheadAttention)
    ]
    return nonlinearities or [name for name, _ in layers_in_order(network)[:-1]]


@contextmanager
def layer_outputs(network: nn.Module, layers: list[str]) -> Iterator[list[Tensor]]:
    """Collect the outputs of the named layers in the order in which they are computed.

    A layer used twice in a forward pass gives two outputs.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Identity(), nn.ReLU())
        >>> with layer_outputs(network, ["1"]) as outputs:
        ...     _ = network(torch.tensor([-1.0, 2.0]))
        >>> outputs
        [tensor([0., 2.])]
    """
    outputs: list[Tensor] = []

    def collect(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)

    handles = [network.get_submodule(name).register_forward_hook(collect) for name in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
