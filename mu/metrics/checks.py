"""Input checks that the metrics share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mu.utils.errors import InputError, UndefinedError


def as_vector(values: Tensor, name: str) -> Tensor:
    """Values `[N]` as detached float64, without NaN; infinity is allowed.

    Args:
        values: `[N]` of any type, N >= 1.
        name: of the values, with which a message begins.

    Raises:
        InputError: the values are not one-dimensional.
        UndefinedError: a value is NaN, or there is none.

    Example:
        >>> as_vector(torch.tensor([1, 2]), "nll")
        tensor([1., 2.], dtype=torch.float64)
    """
    if values.ndim != 1:
        raise InputError(f"{name} must be [N], but has shape {list(values.shape)}.")
    if len(values) == 0:
        raise UndefinedError(f"{name} must have at least one number, but has none.")
    if bool(values.isnan().any()):
        raise UndefinedError(
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
        InputError: the values are not one-dimensional.
        UndefinedError: a value is infinite or NaN, or there is none.

    Example:
        >>> as_finite_vector(torch.tensor([1, 2]), "a target")
        tensor([1., 2.], dtype=torch.float64)
    """
    if values.ndim == 1 and not bool(values.isfinite().all()):
        raise UndefinedError(
            f"{name} must be finite, but holds infinity or NaN; the model that was tested has "
            "diverged."
        )
    return as_vector(values, name)


def check_number(value: float, name: str) -> float:
    """The value, unless it is NaN.

    Args:
        value: a number.
        name: of the number, with which a message begins.

    Raises:
        UndefinedError: the value is NaN.

    Example:
        >>> check_number(0.5, "an AUC")
        0.5
    """
    if math.isnan(value):
        raise UndefinedError(f"{name} is NaN, so nothing can be computed from it.")
    return value


def check_differing(name: str, *sides: Tensor) -> None:
    """Check that scores are not all equal, so that an attack can tell samples apart by them.

    Args:
        name: of the scores, with which a message begins.
        sides: scores `[N]` of members and non-members.

    Raises:
        UndefinedError: all are equal.

    Example:
        >>> check_differing("the losses", torch.zeros(2), torch.tensor([0.0, 1.0]))
    """
    scores = torch.cat([side.detach().double().cpu().flatten() for side in sides])
    if len(scores) and bool((scores == scores[0]).all()):
        raise UndefinedError(
            f"{name} are the same for every sample, so no attack can tell samples apart."
        )
