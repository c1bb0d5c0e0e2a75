"""Mean absolute and root mean squared error of a regressor, in float64."""

from __future__ import annotations

from torch import Tensor

from mu.metrics.checks import as_finite_vector
from mu.utils.errors import InputError


def mean_absolute_error(prediction: Tensor, target: Tensor) -> float:
    """Mean absolute error in the target's unit.

    Args:
        prediction: `[N]`, finite.
        target: `[N]`, finite.

    Example: errors 1 and 3.

        >>> import torch
        >>> mean_absolute_error(torch.tensor([1.0, 3.0]), torch.zeros(2))
        2.0
    """
    return _errors(prediction, target).abs().mean().item()


def root_mean_squared_error(prediction: Tensor, target: Tensor) -> float:
    """Root mean squared error in the target's unit; never below the mean absolute error.

    Args:
        prediction: `[N]`, finite.
        target: `[N]`, finite.

    Example: squares 1 and 49, mean 25.

        >>> import torch
        >>> root_mean_squared_error(torch.tensor([1.0, 7.0]), torch.zeros(2))
        5.0
    """
    return _errors(prediction, target).square().mean().sqrt().item()


mae = mean_absolute_error
rmse = root_mean_squared_error


def _errors(prediction: Tensor, target: Tensor) -> Tensor:
    if prediction.shape != target.shape:
        raise InputError(
            f"predictions have shape {tuple(prediction.shape)} but targets {tuple(target.shape)}; "
            "they must agree."
        )
    return as_finite_vector(prediction, "a prediction") - as_finite_vector(target, "a target").to(
        prediction.device
    )
