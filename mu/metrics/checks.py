"""Input checks that the metrics share."""

from __future__ import annotations

import torch
from torch import Tensor

from mu.utils.errors import InputError, RunError


def as_vector(values: Tensor, name: str) -> Tensor:
    """Values `[N]` as detached float64, without NaN; infinity is allowed.

    Args:
        values: `[N]` of any type, N >= 1.
        name: of the values, with which a message begins.

    Raises:
        InputError: the values are not one-dimensional, or none are given.
        RunError: a value is NaN.

    Example:
        >>> as_vector(torch.tensor([1, 2]), "nll")
        tensor([1., 2.], dtype=torch.float64)
    """
    if values.ndim != 1 or len(values) == 0:
        raise InputError(
            f"{name} must be [N] with at least one number, but has shape {list(values.shape)}."
        )
    if bool(values.isnan().any()):
        raise RunError(
            f"{name} holds NaN: the model that was tested has diverged, so nothing can be "
            "measured on it."
        )
    return values.detach().to(torch.float64)


def as_finite_vector(values: Tensor, name: str) -> Tensor:
    """Values `[N]` as detached float64, without NaN and infinity.

    Args:
        values: `[N]` of any type, N >= 1.
        name: of the values, with which a message begins.

    Raises:
        InputError: the values are not one-dimensional, or none are given.
        RunError: a value is infinite or NaN.

    Example:
        >>> as_finite_vector(torch.tensor([1, 2]), "a target")
        tensor([1., 2.], dtype=torch.float64)
    """
    if values.ndim == 1 and not bool(values.isfinite().all()):
        raise RunError(
            f"{name} must be finite, but holds infinity or NaN; the model that was tested has "
            "diverged."
        )
    return as_vector(values, name)
