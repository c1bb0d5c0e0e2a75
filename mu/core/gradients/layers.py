"""Per-sample gradients of a layer's weights from its input and the gradient of its output.

There are rules for convolutions, linear layers, layer norm, group norm, and batch norm in eval
mode; each computes all samples at once.
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
    layer_type = type(layer)
    supported = layer_type in (nn.Linear, nn.LayerNorm, nn.GroupNorm, *_BATCH_NORMS)
    if isinstance(layer, _BATCH_NORMS) and layer_type in _BATCH_NORMS:
        # without running statistics, samples mix in eval mode too
        supported = layer.running_mean is not None
    if isinstance(layer, tuple(_CONVOLUTIONS)) and layer_type in _CONVOLUTIONS:
        supported = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if not supported:
        raise InputError(
            f"per-sample gradients by hooks know no {layer_type.__name__} like this one; choose "
            "auto, vmap or loop."
        )


def layer_gradient(layer: Any, name: str, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Per-sample gradient of one weight of one layer, `[B, *shape]`.

    Args:
        layer: a layer that `check_layer` accepts.
        name: `weight` or `bias`.
        inputs: the layer's input, `[B, ...]`.
        gradient: of the layer's output, `[B, ...]`.
    """
    if isinstance(layer, nn.Linear):
        flat = gradient.reshape(len(gradient), -1, layer.out_features)
        if name == "bias":
            return flat.sum(1)
        return torch.bmm(flat.transpose(1, 2), inputs.reshape(len(inputs), -1, layer.in_features))
    if isinstance(layer, nn.LayerNorm):
        if name == "weight":
            gradient = gradient * F.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
        return gradient.reshape(len(gradient), -1, *layer.normalized_shape).sum(1)
    positions = gradient.reshape(*gradient.shape[:2], -1)
    if name == "bias":
        return positions.sum(2)
    if isinstance(layer, nn.GroupNorm):
        return (
            positions * F.group_norm(inputs, layer.num_groups, eps=layer.eps).reshape_as(positions)
        ).sum(2)
    if isinstance(layer, _BATCH_NORMS):
        assert layer.running_mean is not None and layer.running_var is not None
        product = torch.einsum("bcl,bcl->bc", positions, inputs.reshape(*inputs.shape[:2], -1))
        return (product - positions.sum(2) * layer.running_mean) * (
            layer.running_var + layer.eps
        ).rsqrt()
    return _convolution(layer, inputs, gradient)


def squared_gradient(layer: Any, name: str, inputs: Tensor, gradient: Tensor) -> Tensor:
    """`Σ_b` of the squares of `layer_gradient`, where possible without computing that."""
    if isinstance(layer, nn.Linear) and name == "weight" and gradient.ndim == 2:
        return gradient.square().T @ inputs.square()
    chunk = len(inputs)
    if inputs.device.type == "cpu" and isinstance(layer, tuple(_CONVOLUTIONS)) and name == "weight":
        patch = (
            0
            if _grouped_is_better(layer, gradient)
            else layer.weight[0].numel() * gradient[0, 0].numel()
        )
        # as many samples at a time as fit into the cache
        chunk = max(1, _CACHE // max(patch, layer.weight.numel()))
    total = torch.zeros_like(getattr(layer, name))
    for part, part_gradient in zip(inputs.split(chunk), gradient.split(chunk), strict=True):
        rows = layer_gradient(layer, name, part, part_gradient)
        if len(rows) == 1:
            total.addcmul_(rows[0], rows[0])  # in one pass over a large kernel
        else:
            total += rows.square_().sum(0)
    return total


def _grouped_is_better(layer: Any, gradient: Tensor) -> bool:
    # one grouped convolution over (samples x channels): 1.1-1.5 times the batched weight gradient
    # on a CPU for 16 to 64 channels, but 10 times for 3 or 512 channels or few positions, where
    # products with the patches take 2-4 times (measured with oneDNN)
    return layer.groups > 1 or (
        gradient.device.type == "cpu"
        and 16 <= layer.in_channels <= 64
        and gradient[0, 0].numel() >= 16
    )


def _convolution(layer: Any, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Per-sample gradient of a convolution's kernel, `[B, O, C / groups, *kernel]`."""
    size = len(inputs)
    shape = layer.weight.shape
    if not _grouped_is_better(layer, gradient):
        patches = _patches(layer, inputs).reshape(size, shape[1:].numel(), -1)
        return torch.bmm(gradient.flatten(2), patches.transpose(1, 2)).view(size, *shape)
    weight_gradient = _CONVOLUTIONS[type(layer)]
    joined = weight_gradient(
        inputs.reshape(1, -1, *inputs.shape[2:]),
        (size * shape[0], *shape[1:]),
        gradient.reshape(1, -1, *gradient.shape[2:]),
        layer.stride,
        layer.padding,
        layer.dilation,
        size * layer.groups,
    )
    return joined.view(size, *shape)


def _patches(layer: Any, inputs: Tensor) -> Tensor:
    """Patches under the kernel: a view `[B, C, *kernel, *positions]` of the padded input."""
    padding = [side for width in reversed(layer.padding) for side in (width, width)]
    padded = F.pad(inputs, padding).contiguous()
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
    # positions of the kernel, and strides within it and between its positions
    positions = [
        (length - dilation * (kernel - 1) - 1) // stride + 1
        for length, kernel, stride, dilation, _ in spatial
    ]
    within = [dilation * step for _, _, _, dilation, step in spatial]
    between = [stride * step for _, _, stride, _, step in spatial]
    return padded.as_strided(
        (*padded.shape[:2], *layer.kernel_size, *positions),
        (*padded.stride()[:2], *within, *between),
    )
