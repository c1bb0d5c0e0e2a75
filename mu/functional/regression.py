"""Regression losses and distances between attention maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mu.functional.checks import check_same_shape
from mu.utils.errors import InputError


def squared_error(prediction: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error of each sample, `(f(x_b) - y_b)^2`, averaged or summed over its dimensions.

    Args:
        prediction: `[B, ...]`.
        target: the same shape; `[B, 1]` against `[B]` is refused, because broadcasting would
            compare every pair.
        reduction: `mean` or `sum`, over the dimensions of one sample.

    Returns:
        `[B]`, in `[0, inf)`.

    Raises:
        InputError: the shapes differ.

    Example: squares 4 and 0 of one sample, mean 2.

        >>> squared_error(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([2.])
    """
    check_same_shape("squared_error", prediction, target)
    error = (prediction - target).square()
    if prediction.ndim == 1:
        return error
    return error.flatten(1).sum(1) if reduction == "sum" else error.flatten(1).mean(1)


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error of each sample, `|f(x_b) - y_b|`, averaged over its dimensions.

    Args:
        prediction: `[B, ...]`.
        target: the same shape, see `squared_error`.

    Returns:
        `[B]`, in `[0, inf)`.

    Raises:
        InputError: the shapes differ.

    Example: differences 2 and 0 of one sample, mean 1.

        >>> absolute_error(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
        tensor([1.])
    """
    check_same_shape("absolute_error", prediction, target)
    error = (prediction - target).abs()
    return error.flatten(1).mean(1) if prediction.ndim > 1 else error


def attention_map(activation: Tensor) -> Tensor:
    """Attention map of a layer: channel mean of squared activations, flattened, of L2 norm 1.

    A fully connected layer has no positions, so its map is the vector of squared activations. (The
    released code of Blindspot averages there too, which leaves the constant 1 and makes the layer's
    distance 0 whatever the weights.)

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention" (arXiv 1612.03928).

    Args:
        activation: `[B, C, ...]` with the channels second, or `[B, F]`.

    Returns:
        `[B, D]` with D the number of positions (or F), non-negative, of norm 1; all 0 where the
        activation is 0.

    Raises:
        InputError: the activation has fewer than two dimensions.

    Example: one channel with values 1 and 2: squares (1, 4), norm sqrt(17).

        >>> attention_map(torch.tensor([[[1.0, 2.0]]]))
        tensor([[0.2425, 0.9701]])
    """
    if activation.ndim < 2:
        raise InputError(
            f"attention_map needs activations [B, C, ...] or [B, F], not {tuple(activation.shape)}."
        )
    energy = activation.square()
    if activation.ndim > 2:
        energy = energy.mean(1).flatten(1)
    return F.normalize(energy, dim=1)


def attention_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of two attention maps, `mean_d (A(a)_d - A(b)_d)^2`.

    Args:
        a: `[B, C, ...]` or `[B, F]`, activations of one model.
        b: activations of another; the number of channels may differ, the positions may not.

    Returns:
        `[B]`, in `[0, 2 / D]`.

    Raises:
        InputError: the numbers of positions differ.

    Example: maps (1, 0) and (0, 1): both squares are 1.

        >>> attention_distance(torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]]))
        tensor([1.])
    """
    map_a = attention_map(a)
    map_b = attention_map(b)
    check_same_shape("attention_distance", map_a, map_b)
    return (map_a - map_b).square().mean(1)


def blindspot_loss(
    prediction: Tensor,
    target: Tensor,
    proxy_prediction: Tensor,
    activations: Sequence[Tensor],
    proxy_activations: Sequence[Tensor],
    is_forget: Tensor,
    attention_weight: float = 50.0,
) -> Tensor:
    """Blindspot's loss: distance to a proxy model on forget samples, to the targets elsewhere.

    The proxy was trained without the forget samples.

    Forget: `|f(x) - f_proxy(x)| + w sum_l attention_distance(a_l, a_l_proxy)`; retain: `|f(x) -
    y|`. The published loss `r mean_forget + (1 - r) mean_retain`, r the forget share of the batch,
    is the mean of these values over the batch.

    Source: Tarun et al., "Deep Regression Unlearning" (ICML 2023, arXiv 2210.08196); for layers
    `[B, F]` see `attention_map`.

    Args:
        prediction: `[B]` or `[B, F]`.
        target: the same shape; not read on forget samples, so anything (even NaN) may stand there.
        proxy_prediction: the same shape.
        activations: per layer `[B, C, ...]` or `[B, F]`.
        proxy_activations: the same layers of the proxy.
        is_forget: `[B]` bool (or 0/1).
        attention_weight: w >= 0.

    Returns:
        `[B]`, in `[0, inf)`.

    Raises:
        InputError: shapes or numbers of layers differ.

    Example: the first sample is to be forgotten and lies 2 from the proxy, the second 1 from y.

        >>> prediction, target = torch.tensor([3.0, 1.0]), torch.tensor([0.0, 2.0])
        >>> blindspot_loss(prediction, target, torch.ones(2), [], [], torch.tensor([True, False]))
        tensor([2., 1.])
    """
    if len(activations) != len(proxy_activations):
        counts = f"{len(activations)} layers of the model and {len(proxy_activations)} of the proxy"
        raise InputError(f"blindspot_loss was given {counts}; give the same layers of both.")
    check_same_shape("blindspot_loss", prediction, target, proxy_prediction)
    forget = is_forget.bool()
    goal = torch.where(forget.view(-1, *[1] * (target.ndim - 1)), proxy_prediction, target)
    loss = absolute_error(prediction, goal)
    if attention_weight == 0 or not activations:
        return loss
    layers = [attention_distance(a, b) for a, b in zip(activations, proxy_activations, strict=True)]
    return loss + attention_weight * torch.where(forget, torch.stack(layers).sum(0), 0.0)
