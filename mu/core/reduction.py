"""Reduction of per-example losses to a scalar: means over tokens or samples of a whole step."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mu.backbones import WeightedSum
from mu.data.batch import Batch
from mu.utils.errors import InputError

Reduction = Literal["token_mean", "sequence_mean", "sequence_sum", "micro"]
"""How token-weighted losses become a scalar, see `reduce`."""


def reduce(summed: WeightedSum, part: Batch, reduction: Reduction, world_size: int = 1) -> Tensor:
    """Reduce per-example losses to a scalar.

        token_mean      Σ_i s_i / Σ_i w_i
        sequence_mean   (1/N) Σ_i s_i / w_i
        sequence_sum    (1/N) Σ_i s_i

    The sums Σ w_i and N in the denominators are those of the whole optimizer step over ranks and
    accumulated batches, which the plan knows beforehand, so that N accumulated batches give the
    step of one that is N times as large (of each part, over the batches that have it; an epoch's
    last step has the remaining ones). `micro`, the token mean over this rank's micro-batch,
    reproduces references that do that. For weight 1, all are the mean over samples.

    Args:
        summed: `(s [B], w [B])`, each sample's summed loss and its weight (its number of tokens).
        part: the batch part; `total` is the step's Σ w_i, and `count` its N. Without them, as
            outside of a plan, the reduction is `micro`.
        reduction: one of the four.
        world_size: number of ranks, whose gradients are averaged.

    Returns:
        A scalar.

    Raises:
        InputError: `summed` is no such pair.

    Example:
        >>> import torch
        >>> summed = (torch.tensor([2.0, 6.0]), torch.tensor([1.0, 3.0]))
        >>> part = {"total": torch.tensor(4.0), "count": torch.tensor(2.0)}
        >>> [reduce(summed, part, how).item() for how in ("token_mean", "sequence_mean")]
        [2.0, 2.0]
        >>> reduce(summed, part, "sequence_sum")
        tensor(4.)
    """
    if not (isinstance(summed, tuple) and len(summed) == 2):
        raise InputError(
            "self.reduce takes a pair (sum [B], weight [B]), as the backbone's losses are, and not "
            f"a {type(summed).__name__}; values [B] of your own are averaged by self.mean(values, "
            "part)."
        )
    values, weight = summed
    if reduction == "micro" or "total" not in part:
        return values.sum() / weight.sum().clamp_min(1e-12)
    if reduction == "token_mean":
        return values.sum() / (part["total"] / world_size)
    if reduction == "sequence_mean":
        values = values / weight.clamp_min(1e-12)
    return values.sum() / (part["count"] / world_size)


def sample_weighted(part: Batch) -> Batch:
    """The part with its number of samples as total weight, for a mean over samples.

    Example:
        >>> sample_weighted({"total": 40, "count": 2})
        {'total': 2, 'count': 2}
    """
    return {**part, "total": part["count"]} if "count" in part else part


def substitute_weighted(part: Batch) -> Batch:
    """The part with its substitutes' total weight, for the reduction of a loss of substitutes.

    Substitute answers may have more or fewer tokens than the true ones.

    Example:
        >>> substitute_weighted({"total": 40, "substitute_total": 12})
        {'total': 12, 'substitute_total': 12}
    """
    return {**part, "total": part["substitute_total"]} if "substitute_total" in part else part
