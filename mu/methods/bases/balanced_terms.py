"""Loss terms whose weight is a function of their gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mu.core.gradients.summed import gradient_of
from mu.core.module import UnlearningModule


def balanced_terms(
    module: UnlearningModule,
    objective: Tensor,
    constraint: Tensor,
    weigh: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """The objective, and the constraint times a weight λ computed from both gradients.

    Each term is differentiated once: the returned scalars carry the gradients already computed.

    Args:
        module: its trainable weights are differentiated.
        objective: a scalar with a graph of its own.
        constraint: another one; the two share no part of a graph.
        weigh: λ from the flat gradients `[P]` of objective and constraint, means over ranks.
    """
    gradients = [gradient_of(module, term) for term in (objective, constraint)]
    flat = [
        torch.cat([gradient.flatten() for gradient in term]) / module.world_size
        for term in gradients
    ]
    weight = weigh(*module.sum_over_ranks(flat))
    weights: list[Tensor] = [parameter for _, parameter in module.trainable()]
    return (
        with_gradient(objective, weights, gradients[0]),
        weight * with_gradient(constraint, weights, gradients[1]),
    )


def with_gradient(value: Tensor, weights: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """A scalar equal to `value` whose gradient by the weights is `gradients`.

    Example:
        >>> weight = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> scalar = with_gradient(torch.tensor(5.0), [weight], [torch.tensor([3.0, 4.0])])
        >>> scalar.backward()
        >>> scalar.item(), weight.grad
        (5.0, tensor([3., 4.]))
    """
    products = [
        (weight * gradient).sum() for weight, gradient in zip(weights, gradients, strict=True)
    ]
    linear = torch.stack(products).sum()
    return value.detach() + linear - linear.detach()
