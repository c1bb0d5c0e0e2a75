"""The layers of a language model that a method steers and trains."""

from __future__ import annotations

import re
from typing import cast

from torch import nn

from mu.backbones import CausalLM
from mu.utils.errors import InputError


def steered_layer(count: int, layer: int | None) -> int:
    """Index of the steered layer: `layer`, or 7, or the layer in the middle of shallow models.

    Args:
        count: decoder layers of the model.
        layer: 0-based; None is `min(7, (count - 1) // 2)`.

    Raises:
        InputError: the model has no such layer.

    Example:
        >>> steered_layer(32, None), steered_layer(4, None), steered_layer(4, 3)
        (7, 1, 3)
    """
    index = min(7, (count - 1) // 2) if layer is None else layer
    if not 0 <= index < count:
        raise InputError(
            f"there is no layer {layer} to steer; the model has {count}, counted from 0."
        )
    return index


def freeze_but(model: CausalLM, last: int, layers: list[int], weights: str | None) -> None:
    """Freeze all weights but some of the given layers, in place.

    Weights that the model's `part` does not train stay frozen, and so do those after the layer at
    which the forward pass ends: they get no gradient, for which several ranks would wait.

    Args:
        model: its weights are frozen in place.
        last: the layer after which the forward pass stops.
        layers: trained layers.
        weights: regular expression found in the names of trained weights; None trains everything
            up to `last`, embeddings included.

    Raises:
        InputError: no weight is left to train.
    """
    names = {p: name for name, p in model.named_parameters() if p.requires_grad}
    in_layers = {p for index in layers for p in model.decoder_layers[index].parameters()}
    if weights is None:
        embeddings = cast(nn.Module, model.network.get_input_embeddings())  # type: ignore[operator]
        allowed = set(embeddings.parameters())
        for layer in model.decoder_layers[: last + 1]:
            allowed |= set(layer.parameters())
    else:
        allowed = {p for p in in_layers if re.search(weights, names.get(p, ""))}
    if not allowed & set(names):
        examples = (
            ", ".join(sorted(name for p, name in names.items() if p in in_layers)[:3])
            or "none, because the backbone's part trains others"
        )
        raise InputError(
            f"RMU finds no weight to train by {weights!r} in layers {layers}; names there are "
            f"like {examples}."
        )
    for p in model.parameters():
        p.requires_grad_(p in allowed and p in names)
