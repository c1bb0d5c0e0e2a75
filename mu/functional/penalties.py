"""Weight penalties: L1 norm and its schedule, quadratic pull to anchors (EWC)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mu.utils.errors import InputError
from mu.utils.sharded import total_of


def l1_sparse_weight(epoch: int, epochs: int, warm_free_epochs: int, alpha: float) -> float:
    """Coefficient of the ℓ1-sparse penalty in epoch e.

    `max(alpha (1 - e / (E - E0)), 0)`, and `alpha` throughout if E0 = E.

    Source: Jia et al., "Model Sparsity Can Simplify Machine Unlearning" (NeurIPS 2023, arXiv
    2304.04934), released code `FT_l1`. There the constant for E0 = E exists on the CIFAR path only;
    the ImageNet path gives 0.

    Args:
        epoch: e, counted from 0.
        epochs: E, the epochs of unlearning.
        warm_free_epochs: E0, how many epochs at the end go without the penalty (`no_l1_epochs`
            there).
        alpha: the coefficient at epoch 0.

    Returns:
        A number in `[0, alpha]`.

    Raises:
        InputError: E0 is not in `[0, E]`.

    Example: four epochs, the last one free.

        >>> [round(l1_sparse_weight(e, 4, 1, 0.3), 4) for e in range(4)]
        [0.3, 0.2, 0.1, 0.0]
    """
    if not 0 <= warm_free_epochs <= epochs:
        free = f"{warm_free_epochs} epochs without the l1 penalty"
        raise InputError(
            f"A run of {epochs} epochs cannot have {free}; give a number from 0 to {epochs}."
        )
    decaying = epochs - warm_free_epochs
    return alpha if decaying == 0 else max(alpha * (1 - epoch / decaying), 0.0)


def quadratic_penalty(
    weights: Sequence[Tensor], anchors: Sequence[Tensor], importance: Sequence[Tensor]
) -> Tensor:
    """Quadratic penalty of elastic weight consolidation, `sum_i F_i (theta_i - theta*_i)^2`.

    Summed over all entries of all tensors, not averaged, and without the factor 1/2 of EWC's paper.

    Source: Kirkpatrick et al., "Overcoming Catastrophic Forgetting in Neural Networks" (PNAS 2017,
    arXiv 1612.00796), as used by Selective Amnesia (Heng and Soh, NeurIPS 2023, arXiv 2305.10120).

    Args:
        weights: theta, tensors of any shapes on one device.
        anchors: theta*, tensors of the same shapes.
        importance: F >= 0, tensors of the same shapes.

    Returns:
        A scalar, >= 0.

    Example: 0.5 (3 - 1)^2 + 7 (1 - 1)^2.

        >>> weights, anchors = [torch.tensor([3.0, 1.0])], [torch.tensor([1.0, 1.0])]
        >>> quadratic_penalty(weights, anchors, [torch.tensor([0.5, 7.0])])
        tensor(2.)
    """
    terms = [
        (f * (w - a).square()).sum() for w, a, f in zip(weights, anchors, importance, strict=True)
    ]
    return torch.stack(terms).sum()


def l1_norm(parameters: Iterable[Tensor]) -> Tensor:
    """L1 norm `sum_i |theta_i|` of all tensors together: the penalty of ℓ1-sparse unlearning.

    Source: Jia et al., "Model Sparsity Can Simplify Machine Unlearning" (NeurIPS 2023, arXiv
    2304.04934); the released code takes *all* parameters, biases and BatchNorm included.

    Args:
        parameters: tensors of any shapes on one device, at least one.

    Returns:
        A scalar, in `[0, inf)`. The subgradient at 0 is 0.

    Raises:
        InputError: no tensor is given.

    Example:
        >>> l1_norm([torch.tensor([1.0, -2.0]), torch.tensor([[3.0]])])
        tensor(6.)
    """
    norms = [total_of(torch.linalg.vector_norm(parameter, ord=1)) for parameter in parameters]
    if not norms:
        raise InputError(
            "l1_norm was given no parameters; does any weight of this model require a gradient?"
        )
    return torch.stack(norms).sum()
