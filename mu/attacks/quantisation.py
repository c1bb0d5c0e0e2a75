"""Round-to-nearest quantisation of weights, simulated in floating point.

Zhang et al., "Catastrophic failure of LLM unlearning via quantization", ICLR 2025, arXiv
2410.16454: unlearning moves weights by less than the step of a 4-bit grid, so rounding may undo it.
The papers load weights through bitsandbytes, GPTQ or AWQ; this is plain rounding, without these
libraries. For a group of weights w of one output channel and b bits,

    s = max |w| / (2^(b-1) - 1),    w' = s round(w / s),

a symmetric grid of 2^b - 1 values (±127 for int8, ±7 for int4), halves to even. At 8 bits a group
is the whole channel, below that `group` adjacent weights; the last group may be shorter.

The scale is computed, and the rounding done, in single precision at least; w' is then stored in the
weights' own type, so that in bfloat16 it is rounded once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mu.backbones import Backbone
from mu.utils.errors import InputError
from mu.utils.modules import separate_copy

WHOLE_CHANNEL = 8
"""From so many bits on, an output channel has one scale."""


@dataclass(frozen=True)
class Quantised:
    """Copy of a model with rounded weights.

    Attributes:
        backbone: the copy, in eval mode.
        weights: number of rounded weights.
        total: number of all weights.
        moved: mean of |w' - w| over the rounded weights.
    """

    backbone: Any
    weights: int
    total: int
    moved: float


def round_to_nearest(weight: Tensor, bits: int, group: int | None = None) -> Tensor:
    """Weights rounded to nearest on a symmetric grid, `w' = s round(w / s)`.

    Args:
        weight: `[..., O, I]`: output channels by inputs.
        bits: b, 2 to 16.
        group: inputs that share a scale; None for a whole channel.

    Returns:
        The same shape and type. A group of zeros stays one.

    Example: 3 bits have the values -3 to 3; the largest weight is exact.

        >>> round_to_nearest(torch.tensor([[3.0, 0.4, -1.6]]), 3)
        tensor([[ 3.,  0., -2.]])
    """
    check(bits, group)
    inputs = weight.shape[-1]
    size = inputs if group is None else min(group, inputs)
    wide = weight if weight.dtype == torch.float64 else weight.float()
    padded = nn.functional.pad(wide, (0, -inputs % size)).unflatten(-1, (-1, size))
    scale = padded.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    rounded = (padded / scale.where(scale > 0, 1.0)).round() * scale
    return rounded.flatten(-2)[..., :inputs].to(weight.dtype)


@torch.no_grad()
def quantised(
    backbone: Backbone, bits: int, group: int = 128, embeddings: bool = False, head: bool = False
) -> Quantised:
    """Copy of a model with rounded weights in its linear layers.

    Adapters are merged into their layers first. Linear layers are `torch.nn.Linear`, the inner ones
    of `MultiheadAttention`, and of transformers `Conv1D` and the stacked matrices of experts.
    Biases, norms, routers and convolutions keep their weights, as they do in the libraries. Where
    embedding and head are one matrix, either argument rounds it.

    Args:
        backbone: any model; not changed.
        bits: number of bits b.
        group: weights that share a scale, below 8 bits.
        embeddings: round the token embeddings too.
        head: round the output matrix of a language model too; the libraries do not.

    Raises:
        InputError: when there is no linear layer.
    """
    # copy with merged adapters
    check(bits, group)
    copy = separate_copy(backbone).eval()
    if any(".lora_" in name for name, _ in copy.named_parameters()):
        from mu.backbones.lora import merge_adapters

        merge_adapters(copy)
    # choose the matrices
    tables = _embeddings(copy)
    heads = _heads(copy)
    chosen = [
        (weight, turned)
        for weight, turned in _matrices(copy)
        if id(weight) not in tables | heads
        or (embeddings and id(weight) in tables)
        or (head and id(weight) in heads)
    ]
    if not chosen:
        raise InputError(
            f"{type(backbone).__name__} has no linear layer, so there is nothing to quantise."
        )
    # round them
    moved = torch.zeros((), dtype=torch.float64)
    for weight, turned in chosen:
        grid = round_to_nearest(
            weight.mT if turned else weight, bits, None if bits >= WHOLE_CHANNEL else group
        )
        grid = grid.mT if turned else grid
        moved += (grid.double() - weight.double()).abs().sum().cpu()
        weight.copy_(grid)
    count = sum(weight.numel() for weight, _ in chosen)
    return Quantised(
        copy, count, sum(weight.numel() for weight in copy.parameters()), moved.item() / count
    )


def check(bits: int, group: int | None) -> None:
    """Check the arguments of a quantisation grid.

    Raises:
        InputError: names the argument.
    """
    if not 2 <= bits <= 16:
        raise InputError(f"a grid of {bits} bits is not defined here; take 2 to 16.")
    if group is not None and group < 1:
        raise InputError(f"a group of {group} weights has no scale; it has at least 1.")


def _matrices(model: nn.Module) -> Iterator[tuple[Any, bool]]:
    """Weight matrices, embeddings included, each once, and whether they are `[..., I, O]`."""
    seen: set[int] = set()
    for layer in model.modules():
        for weight, turned in _of_layer(layer):
            if id(weight) not in seen:
                seen.add(id(weight))
                yield weight, turned


def _of_layer(layer: Any) -> Iterator[tuple[Any, bool]]:
    if isinstance(layer, nn.Linear | nn.Embedding) and isinstance(layer.weight, nn.Parameter):
        yield layer.weight, False
    elif isinstance(layer, nn.MultiheadAttention):
        inside = (
            layer.in_proj_weight,
            layer.q_proj_weight,
            layer.k_proj_weight,
            layer.v_proj_weight,
        )
        yield from ((weight, False) for weight in inside if weight is not None)
    elif type(layer).__name__ == "Conv1D":
        # transformers' linear layer of GPT-2, stored as [inputs, outputs]
        yield layer.weight, True
    elif type(layer).__name__.endswith("Experts"):
        turned = bool(getattr(layer, "is_transposed", False))  # [experts, inputs, outputs]
        yield from (
            (weight, turned) for weight in layer.parameters(recurse=False) if weight.ndim == 3
        )


def _embeddings(model: nn.Module) -> set[int]:
    return {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}


def _heads(model: nn.Module) -> set[int]:
    """Ids of the output matrices of all language models in a module."""
    weight_ids: set[int] = set()
    for layer in model.modules():
        ask = getattr(layer, "get_output_embeddings", None)
        head = ask() if callable(ask) else None
        if isinstance(head, nn.Module):
            weight_ids |= {id(weight) for weight in head.parameters(recurse=False)}
    return weight_ids
