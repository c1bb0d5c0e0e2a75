"""Per-sample gradients of one layer's weights, from its input and the gradient of its output, all
samples at once.

Knows convolutions, linear layers, layer norm and group norm, and batch norm in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from mu.utils.errors import InputError

_CONVOLUTIONS: dict[type, Callable[..., Tensor]] = {
    nn.Conv1d: conv1d_weight,
    nn.Conv2d: conv2d_weight,
    nn.Conv3d: conv3d_weight,
}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CACHE = 1 << 19  # numbers in float32 that fit into a CPU core's cache


def check_layer(layer: nn.Module) -> None:
    """Refuse a layer whose gradients these rules do not give.

    Raises:
        InputError: names the layer's class.
    """
    kind = type(layer)
    known = kind in (nn.Linear, nn.LayerNorm, nn.GroupNorm, *_BATCH_NORMS)
    if kind in _BATCH_NORMS:
        # without running statistics, samples mix in eval mode too
        known = layer.running_mean is not None
    if isinstance(layer, tuple(_CONVOLUTIONS)) and kind in _CONVOLUTIONS:
        known = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if not known:
        raise InputError(
            f"per-sample gradients by hooks know no {kind.__name__} like this one; choose auto, "
            "vmap or loop."
        )


def layer_gradient(layer: Any, name: str, given: Tensor, gradient: Tensor) -> Tensor:
    """`[B, *shape]`: the per-sample gradient of one weight of one layer.

    Args:
        layer: a layer that `check_layer` lets pass.
        name: `weight` or `bias`.
        given: the layer's input, `[B, ...]`.
        gradient: of the layer's output, `[B, ...]`.
    """
    if isinstance(layer, nn.Linear):
        flat = gradient.reshape(len(gradient), -1, layer.out_features)
        if name == "bias":
            return flat.sum(1)
        return torch.bmm(flat.transpose(1, 2), given.reshape(len(given), -1, layer.in_features))
    if isinstance(layer, nn.LayerNorm):
        if name == "weight":
            gradient = gradient * F.layer_norm(given, layer.normalized_shape, eps=layer.eps)
        return gradient.reshape(len(gradient), -1, *layer.normalized_shape).sum(1)
    positions = gradient.reshape(*gradient.shape[:2], -1)
    if name == "bias":
        return positions.sum(2)
    if isinstance(layer, nn.GroupNorm):
        return (
            positions * F.group_norm(given, layer.num_groups, eps=layer.eps).reshape_as(positions)
        ).sum(2)
    if isinstance(layer, _BATCH_NORMS):
        assert layer.running_mean is not None and layer.running_var is not None
        product = torch.einsum("bcl,bcl->bc", positions, given.reshape(*given.shape[:2], -1))
        return (product - positions.sum(2) * layer.running_mean) * (
            layer.running_var + layer.eps
        ).rsqrt()
    return _convolution(layer, given, gradient)


def squared_gradient(layer: Any, name: str, given: Tensor, gradient: Tensor) -> Tensor:
    """`Σ_b` of the squares of `layer_gradient`, without making it where that can be."""
    if isinstance(layer, nn.Linear) and name == "weight" and gradient.ndim == 2:
        return gradient.square().T @ given.square()
    chunk = len(given)
    if given.device.type == "cpu" and isinstance(layer, tuple(_CONVOLUTIONS)) and name == "weight":
        patch = (
            0
            if _grouped_is_better(layer, gradient)
            else layer.weight[0].numel() * gradient[0, 0].numel()
        )
        # as many samples at a time as fit into the cache
        chunk = max(1, _CACHE // max(patch, layer.weight.numel()))
    total = torch.zeros_like(getattr(layer, name))
    for part, arrived in zip(given.split(chunk), gradient.split(chunk), strict=True):
        rows = layer_gradient(layer, name, part, arrived)
        if len(rows) == 1:
            total.addcmul_(rows[0], rows[0])  # in one pass over a large kernel
        else:
            total += rows.square_().sum(0)
    return total


def _grouped_is_better(layer: Any, gradient: Tensor) -> bool:
    # one grouped convolution over (samples x channels): 1.1-1.5 times the batched weight gradient
    # on a CPU for 16 to 64 channels, but 10
    # times for 3 or 512 channels or few places, where products with the patches take 2-4 times
    # (measured with oneDNN)
    return layer.groups > 1 or (
        gradient.device.type == "cpu"
        and 16 <= layer.in_channels <= 64
        and gradient[0, 0].numel() >= 16
    )


def _convolution(layer: Any, given: Tensor, gradient: Tensor) -> Tensor:
    """Per-sample gradient of a convolution's kernel, `[B, O, C / groups, *kernel]`."""
    size = len(given)
    shape = layer.weight.shape
    if not _grouped_is_better(layer, gradient):
        patches = _patches(layer, given).reshape(size, shape[1:].numel(), -1)
        return torch.bmm(gradient.flatten(2), patches.transpose(1, 2)).view(size, *shape)
    weight_gradient = _CONVOLUTIONS[type(layer)]
    joined = weight_gradient(
        given.reshape(1, -1, *given.shape[2:]),
        (size * shape[0], *shape[1:]),
        gradient.reshape(1, -1, *gradient.shape[2:]),
        layer.stride,
        layer.padding,
        layer.dilation,
        size * layer.groups,
    )
    return joined.view(size, *shape)


def _patches(layer: Any, given: Tensor) -> Tensor:
    """What the kernel sees at each place: a view `[B, C, *kernel, *places]` of the padded input."""
    padded = F.pad(
        given, [side for width in reversed(layer.padding) for side in (width, width)]
    ).contiguous()
    spatial = list(
        zip(
            padded.shape[2:],
            layer.kernel_size,
            layer.stride,
            layer.dilation,
            padded.stride()[2:],
            strict=True,
        )
    )
    places = [
        (length - dilation * (kernel - 1) - 1) // stride + 1
        for length, kernel, stride, dilation, _ in spatial
    ]
    within = [dilation * step for _, _, _, dilation, step in spatial]
    between = [stride * step for _, _, stride, _, step in spatial]
    return padded.as_strided(
        (*padded.shape[:2], *layer.kernel_size, *places), (*padded.stride()[:2], *within, *between)
    )
