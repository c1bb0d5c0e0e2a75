"""Per-sample gradients of a layer's weights from its input and the gradient of its output.

There are rules for convolutions, linear layers, layer norm, group norm, and batch norm in eval
mode; each computes all samples at once. Any other layer without weighted layers inside (norms with
an activation, norms of channels, scales) is run again for each sample, by `torch.func.vmap`.
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


_RULES = (nn.Linear, nn.LayerNorm, nn.GroupNorm, *_BATCH_NORMS, *_CONVOLUTIONS)
_SAME_AS_BASE = (  # subclasses that compute what their base class does
    "timm.layers.linear.Linear",
    "timm.layers.norm.LayerNorm",
    "timm.layers.norm.GroupNorm",
    "timm.layers.norm.GroupNorm1",
)


def check_layer(layer: nn.Module) -> None:
    """Refuse a layer whose gradients neither a rule nor another run of the layer gives.

    Raises:
        InputError: names the layer's class.
    """
    problem = ""
    if any(True for child in layer.children() for _ in child.parameters()):
        problem = "has weights of its own beside layers with weights"
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
        problem = "has no running statistics, so its samples depend on each other"
    elif isinstance(layer, nn.RNNBase):
        problem = "is recurrent"
    if problem:
        raise InputError(
            f"per-sample gradients by hooks do not work where a {type(layer).__name__} {problem}; "
            "choose auto, vmap or loop."
        )


def has_rule(layer: nn.Module) -> bool:
    """Whether a layer is of a class with a rule of its own."""
    name = f"{type(layer).__module__}.{type(layer).__name__}"
    if type(layer) not in _RULES and name not in _SAME_AS_BASE:
        return False
    # the convolution's rules read the padding as numbers of zeros
    return not isinstance(layer, tuple(_CONVOLUTIONS)) or (
        layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    )


class _Unhooked(nn.Module):
    """A layer without its hooks."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer.forward(inputs)


def _rerun_gradient(layer: nn.Module, name: str, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Per-sample gradient of one weight, from another forward and backward pass of the layer."""
    unhooked = _Unhooked(layer)
    weight = getattr(layer, name).detach()

    def gradient_of_row(row: Tensor, row_gradient: Tensor) -> Tensor:
        def output(value: Tensor) -> Tensor:
            swapped = {f"layer.{name}": value}
            return torch.func.functional_call(unhooked, swapped, (row[None],))[0]

        return torch.func.vjp(output, weight)[1](row_gradient)[0]

    return torch.func.vmap(gradient_of_row)(inputs, gradient).detach()


def layer_gradient(layer: Any, name: str, inputs: Tensor, gradient: Tensor) -> Tensor:
    """Per-sample gradient of one weight of one layer, `[B, *shape]`.

    Args:
        layer: a layer that `check_layer` accepts.
        name: `weight` or `bias`.
        inputs: the layer's input, `[B, ...]`.
        gradient: of the layer's output, `[B, ...]`.
    """
    if not has_rule(layer):
        return _rerun_gradient(layer, name, inputs, gradient)
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
    if has_rule(layer) and isinstance(layer, nn.Linear) and name == "weight" and gradient.ndim == 2:
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
    if not has_rule(layer):
        chunk = len(inputs)
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
