"""Weight layers of an image network in order, and its head."""

from __future__ import annotations

from typing import Any

from torch import nn

from mu.backbones.vision.normalisation import ImageNetwork
from mu.utils.errors import InputError


def layers_in_order(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Weight layers of a network, from input to output, in the order of their definition.

    A weight layer is a convolution, a linear layer, or another module that owns a weight of two or
    more dimensions. Norms and scales (modules with one-dimensional weights) belong to the layer
    before them; tokens, position embeddings and the like, owned by a module that has weight layers
    inside, belong to the first layer inside it. So the last k layers are the last k entries, and
    every parameter is in exactly one entry.

    Returns:
        `(name of the weight layer, layer)`; the layer is that module itself, or an `nn.ModuleList`
        with the modules that belong to it.
    """
    names: list[str] = []
    groups: list[list[nn.Module]] = []
    waiting: list[nn.Module] = []
    for name, module in network.named_modules():
        parameters = list(module.parameters(recurse=False))
        if not parameters:
            continue
        if any(True for child in module.children() for _ in child.parameters()):
            waiting.append(nn.ParameterList(parameters))
        elif any(weight.ndim >= 2 for weight in parameters):
            names.append(name)
            groups.append([*waiting, module])
            waiting = []
        elif groups:
            groups[-1].append(module)
        else:
            waiting.append(module)
    if groups:
        groups[-1].extend(waiting)
    layers = [group[0] if len(group) == 1 else nn.ModuleList(group) for group in groups]
    return list(zip(names, layers, strict=True))


def head(network: nn.Module) -> tuple[str, nn.Linear]:
    """Path and module of the last linear layer, the one that gives the logits.

    Args:
        network: an `ImageNetwork` or any network; the path is relative to it.

    Raises:
        InputError: when the network does not end in one linear layer.
    """
    body, prefix = (network.body, "body.") if isinstance(network, ImageNetwork) else (network, "")
    get_classifier: Any = getattr(body, "get_classifier", None)  # timm's convention
    if get_classifier is not None:
        classifier = get_classifier()
        candidates = [
            (name, module) for name, module in body.named_modules() if module is classifier
        ]
    else:
        candidates = [
            (name, module) for name, module in body.named_modules() if isinstance(module, nn.Linear)
        ]
    if not candidates or not isinstance(candidates[-1][1], nn.Linear):
        raise InputError(
            f"{type(body).__name__} does not end in one linear layer, so it has no head to change."
        )
    return prefix + candidates[-1][0], candidates[-1][1]
