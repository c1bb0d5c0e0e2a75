"""Sums of gradients over a pass of batches, in eval mode, added up over ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mu.core.protocols import Method
from mu.utils.modules import eval_mode
from mu.utils.sharded import is_sharded, local_part


def gradient_of(method: Method, loss: Tensor) -> list[Tensor]:
    """Gradient of a scalar by the trainable weights, zero where a weight plays no part.

    Neither `.grad` nor DDP's reducer is touched. Of weights that are sharded over ranks, it is the
    sum over all ranks' scalars, as DTensors of the weights' layout; every rank has to call it.
    """
    parameters = [weight for _, weight in method.trainable()]
    if any(is_sharded(weight) for weight in parameters):
        return _sharded_gradient(loss, parameters, method.world_size)
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


def _sharded_gradient(
    loss: Tensor, parameters: list[nn.Parameter], world_size: int
) -> list[Tensor]:
    """Sum over ranks of the gradient by sharded weights.

    The forward pass gathers weights into other tensors, of which `torch.autograd.grad` by the
    shards knows nothing: FSDP2 puts gradients into `.grad` alone.
    """
    before = [weight.grad for weight in parameters]
    for weight in parameters:
        weight.grad = None
    loss.backward()
    gradients = [
        torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in parameters
    ]
    for weight, gradient in zip(parameters, before, strict=True):
        weight.grad = gradient
    # FSDP2 averages over ranks
    torch._foreach_mul_([local_part(gradient) for gradient in gradients], world_size)
    return gradients


class RunningSum:
    """Sums over batches, later over ranks, of one tensor for each trainable weight (and scalars).

    Used where batches come one at a time, as in `Edit.observe`; `accumulate` loops over them.
    """

    def __init__(self) -> None:
        self.count = 0.0
        self._sums: list[Tensor] | None = None

    def add(self, values: list[Tensor], count: float = 1.0) -> None:
        """Add one batch's tensors; the first batch's are taken over and changed in place.

        Args:
            values: one tensor for each trainable weight, perhaps followed by scalars.
            count: what the batch weighs in `mean`: 1, or its number of samples.
        """
        self.count += count
        if self._sums is None:
            self._sums = values
        else:
            torch._foreach_add_(self._sums, values)

    def local(self, method: Method) -> list[Tensor]:
        """This rank's sums; zeros like the trainable weights where it had no batch."""
        if self._sums is None:
            return [torch.zeros_like(weight) for _, weight in method.trainable()]
        return self._sums

    def total(self, method: Method) -> list[Tensor]:
        """Sums over batches and ranks."""
        return method.sum_over_ranks(self.local(method))

    def mean(self, method: Method) -> list[Tensor]:
        """Sums over batches and ranks, divided by the sum of all counts."""
        count = torch.tensor(self.count, device=method.device)
        *sums, count = method.sum_over_ranks([*self.local(method), count])
        return [value / count for value in sums]


def accumulate(
    method: Method,
    batches: Iterable[Mapping[str, Any]],
    fn: Callable[[Mapping[str, Any]], list[Tensor] | None],
) -> RunningSum:
    """Sum a function of batches in eval mode: the gradient pass of masks and Fisher matrices.

    `accumulate(...).total(method)` is Σ_b fn(b) over all batches and ranks; `.mean(method)` is that
    over the number of batches; `.local(method)` is this rank's sum alone.

    Args:
        method: its backbone is in eval mode during the pass, gradients are on, and the precision is
            the trainer's.
        batches: such as `method.iterate_batches(Forget(), augment=False)`.
        fn: one tensor for each trainable weight from one batch, fresh ones, which may be changed
            in place; None leaves the batch out (a rank that has run out of samples).

    Example:
        >>> from mu.backbones import Classifier
        >>> from mu.core import UnlearningModule
        >>> network = torch.nn.Linear(2, 2, bias=False)
        >>> method = UnlearningModule(Classifier(network=network, num_classes=2))
        >>> batches = [{"x": torch.tensor([[1.0, 2.0]])}, {"x": torch.tensor([[3.0, 4.0]])}]
        >>> fn = lambda batch: gradient_of(method, network(batch["x"]).sum())
        >>> accumulate(method, batches, fn).total(method)
        [tensor([[4., 6.],
                [4., 6.]])]
    """
    sums = RunningSum()
    with eval_mode(method.backbone), torch.enable_grad(), method.precision():
        for batch in batches:
            values = fn(batch)
            if values is not None:
                sums.add(values)
    return sums


def summed_gradient(
    method: Method, batches: Iterable[Mapping[str, Any]], part: str
) -> dict[str, Tensor]:
    """Σ_b ∇ (mean loss of batch b), signed, over all batches and ranks, in eval mode.

    Args:
        method: its trainable weights are differentiated at their present values.
        batches: with the part `part` (see `UnlearningModule.iterate_batches`).
        part: which part's loss, `forget` or `retain`.

    Returns:
        Gradient by parameter name.
    """

    def mean_gradient(batch: Mapping[str, Any]) -> list[Tensor]:
        loss = method.reduce(method.backbone.loss(batch[part]), batch[part])
        return gradient_of(method, loss / method.world_size)

    gradients = accumulate(method, batches, mean_gradient).total(method)
    return dict(zip([name for name, _ in method.trainable()], gradients, strict=True))
