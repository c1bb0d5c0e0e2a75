"""Input checks and working precision that losses and attacks share."""

from __future__ import annotations

import torch
from torch import Tensor

from mu.utils.errors import InputError


def check_same_shape(name: str, first: Tensor, *others: Tensor) -> None:
    """Raise unless all tensors have one shape; nothing is broadcast.

    Args:
        name: function whose arguments are checked, for the message.
        first: tensor of any shape.
        others: tensors that must have the shape of the first.

    Raises:
        InputError: two shapes differ.

    Example:
        >>> check_same_shape("npo", torch.zeros(2), torch.ones(2))
    """
    for other in others:
        if other.shape != first.shape:
            raise InputError(
                f"{name} needs tensors of one shape, but got {tuple(first.shape)} and "
                f"{tuple(other.shape)}."
            )


def check_positive(name: str, value: float) -> None:
    """Raise unless a number is greater than 0; NaN is refused too.

    Args:
        name: the quantity, with which the message begins.
        value: any number.

    Raises:
        InputError: the number is not greater than 0.

    Example:
        >>> check_positive("The temperature", 0.5)
    """
    if not value > 0:
        raise InputError(f"{name} must be greater than 0, not {value}.")


def check_token_logits(name: str, logits: Tensor, labels: Tensor, *others: Tensor) -> None:
    """Raise unless logits are `[B, T, V]`, labels `[B, T]`, and further logits of the same shape.

    Args:
        name: function whose arguments are checked, for the message.
        logits: `[B, T, V]`.
        labels: `[B, T]`.
        others: further logits `[B, T, V]`.

    Raises:
        InputError: a shape does not fit.

    Example:
        >>> check_token_logits("ce_u", torch.zeros(2, 3, 5), torch.zeros(2, 3))
    """
    if logits.dim() != 3 or logits.shape[:2] != labels.shape:
        raise InputError(
            f"{name} needs logits [B, T, V] and labels [B, T], not {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    check_same_shape(name, logits, *others)


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision cast to float32; other dtypes unchanged.

    A sum over a hundred tokens has few exact digits in bfloat16.

    Args:
        values: any shape.

    Returns:
        The same shape.

    Example:
        >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
