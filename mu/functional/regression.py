"""Losses of regressors and distances between their attention maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mu.functional.classification import _same_shape
from mu.utils.errors import InputError


def squared_error(prediction: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """`(f(x_b) - y_b)^2`, averaged over whatever dimensions follow the first, or added up over
    them.

    Args:
        prediction: `[B, ...]`.
        target: the same shape; `[B, 1]` against `[B]` is refused, because broadcasting would
            compare every pair.
        reduction: `mean` or `sum`, over the dimensions of one sample.

    Returns:
        `[B]`, in `[0, inf)`.
    """
    _same_shape("squared_error", prediction, target)
    error = (prediction - target).square()
    if prediction.ndim == 1:
        return error
    return error.flatten(1).sum(1) if reduction == "sum" else error.flatten(1).mean(1)


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """`|f(x_b) - y_b|`, averaged over whatever dimensions follow the first.

    Args:
        prediction: `[B, ...]`.
        target: the same shape, see `squared_error`.

    Returns:
        `[B]`, in `[0, inf)`.
    """
    _same_shape("absolute_error", prediction, target)
    return (
        (prediction - target).abs().flatten(1).mean(1)
        if prediction.ndim > 1
        else (prediction - target).abs()
    )


def attention_map(activation: Tensor) -> Tensor:
    """Attention map of a layer: the channel mean of squared activations, flattened and divided by
    its L2 norm.

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
    """Mean over positions of `(A(a) - A(b))^2`, A being `attention_map`.

    Args:
        a: `[B, C, ...]` or `[B, F]`, activations of one model.
        b: activations of another; the number of channels may differ, the positions may not.

    Returns:
        `[B]`, in `[0, 2 / D]`.
    """
    map_a = attention_map(a)
    map_b = attention_map(b)
    _same_shape("attention_distance", map_a, map_b)
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
    """Blindspot unlearning: follow a proxy that never learnt the forget samples, and the true
    targets elsewhere.

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
    """
    if len(activations) != len(proxy_activations):
        counts = f"{len(activations)} layers of the model and {len(proxy_activations)} of the proxy"
        raise InputError(f"blindspot_loss was given {counts}; give the same layers of both.")
    _same_shape("blindspot_loss", prediction, target, proxy_prediction)
    forget = is_forget.bool()
    goal = torch.where(forget.view(-1, *[1] * (target.ndim - 1)), proxy_prediction, target)
    loss = absolute_error(prediction, goal)
    if attention_weight == 0 or not activations:
        return loss
    layers = [attention_distance(a, b) for a, b in zip(activations, proxy_activations, strict=True)]
    return loss + attention_weight * torch.where(forget, torch.stack(layers).sum(0), 0.0)
