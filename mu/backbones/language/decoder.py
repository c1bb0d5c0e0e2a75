"""Decoder of a causal language model: its layers, weights, and configuration of texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from mu.utils.errors import InputError


def text_config(network: Any) -> Any:
    """Configuration of the language model, inside that of a model that reads images too."""
    return network.config.get_text_config(decoder=True)


def is_multimodal(config: Any) -> bool:
    """Whether a configuration has one of texts inside, beside that of images or sound."""
    return config.get_text_config(decoder=True) is not config


def text_weights(network: nn.Module) -> list[str]:
    """Names of the weights that texts pass through; of a text model, all."""
    model: Any = network
    if not is_multimodal(model.config):
        return [name for name, _ in network.named_parameters()]
    parts = (model.get_input_embeddings(), model.get_decoder(), model.get_output_embeddings())
    used = {id(weight) for part in parts for weight in part.parameters()}
    return [name for name, weight in network.named_parameters() if id(weight) in used]


def decoder_stack(network: nn.Module) -> tuple[nn.Module, str]:
    """Module that contains the decoder layers, and the name of their list.

    Raises:
        InputError: there is no list of as many layers as the configuration says.
    """
    model: Any = network
    count = text_config(model).num_hidden_layers
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    stacks = [
        (module, name)
        for module in decoder.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if not stacks:
        raise InputError(
            f"{type(network).__name__} has no list of {count} decoder layers, so nothing can "
            "stop at one of them."
        )
    return stacks[0]  # modules come from the outermost in


class _NoOutput(nn.Identity):
    """Stand-in for an output matrix whose dtype is read."""

    def __init__(self, output: nn.Module) -> None:
        super().__init__()
        # past nn.Module.__setattr__, which would register the weight a second time
        object.__setattr__(self, "weight", getattr(output, "weight", None))


@contextmanager
def cut_after(network: nn.Module, stack: tuple[nn.Module, str], count: int) -> Iterator[None]:
    """Context in which a network ends after its first layers; FSDP needs it called as a whole."""
    model: Any = network
    module, name = stack
    all_layers: Any = getattr(module, name)
    output = model.get_output_embeddings()
    setattr(module, name, all_layers[:count])
    model.set_output_embeddings(_NoOutput(output))
    try:
        yield
    finally:
        setattr(module, name, all_layers)
        model.set_output_embeddings(output)
