"""Float32 master weights for models whose weights are in bfloat16 or float16.

A step of Adam changes a weight by about the learning rate, and bfloat16 has 8 significant bits: a
step below 2^-9 of the weight is rounded away, so that at 1e-5 most weights never move. With master
weights the optimizer moves float32 copies, and the model's weights are those copies, rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)
"""Dtypes whose weights get float32 copies."""


class Float32Copies:
    """Float32 copies of half-precision tensors; tensors of other dtypes stand for themselves.

    Args:
        tensors: the weights, on their device.

    Attributes:
        copies: one tensor for each weight, in the same order.

    Example:
        >>> weight = torch.ones(1, dtype=torch.bfloat16)
        >>> master = Float32Copies([weight])
        >>> for _ in range(4):
        ...     _ = master.copies[0].data.add_(0.001)
        ...     master.write()
        >>> weight.item(), round(master.copies[0].item(), 3)
        (1.0078125, 1.004)
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = list(tensors)
        self.copies = [
            nn.Parameter(tensor.detach().float()) if tensor.dtype in HALF else tensor
            for tensor in self.tensors
        ]

    @property
    def has_copies(self) -> bool:
        """Whether any tensor is in half precision."""
        return any(copy is not tensor for tensor, copy in self.pairs())

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Each tensor with its copy, or with itself."""
        return list(zip(self.tensors, self.copies, strict=True))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over weights that something else has changed since the last `write`.

        Masks put weights back, a method may return to earlier ones, and a checkpoint may be loaded.
        """
        for tensor, copy in self.pairs():
            if copy is not tensor:
                unchanged = tensor == copy.to(tensor.dtype)
                copy.copy_(torch.where(unchanged, copy, tensor.float()))

    @torch.no_grad()
    def write(self) -> None:
        """Round the copies into the weights."""
        for tensor, copy in self.pairs():
            if copy is not tensor:
                tensor.copy_(copy)

    def state(self) -> list[Tensor | None]:
        """The copies for a checkpoint; None for a weight that stands for itself."""
        return [None if copy is tensor else copy.detach() for tensor, copy in self.pairs()]

    @torch.no_grad()
    def load(self, state: Sequence[Tensor | None]) -> None:
        """Load the `state` of a checkpoint."""
        for tensor, copy, value in zip(self.tensors, self.copies, state, strict=True):
            if copy is not tensor and value is not None:
                copy.copy_(value)


class MasterWeights(torch.optim.Optimizer):
    """Optimizer that steps float32 copies of half-precision weights, and rounds them into those.

    Its parameter groups hold the model's weights, so that gradient clipping, schedules, masks and
    sharding strategies see an ordinary optimizer. Copies and moments are in its `state_dict`.
    Beside the weight and its gradient (2 bytes each) a weight costs 4 bytes for the copy, those of
    the moments in float32 (8 for Adam), and during a step 4 for the gradient in float32.

    Args:
        make: factory of the optimizer of the copies.
        groups: parameter groups, or parameters.

    Example:
        >>> weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
        >>> optimizer = MasterWeights(lambda params: torch.optim.SGD(params, lr=0.001), [weight])
        >>> for _ in range(4):
        ...     weight.grad = -torch.ones_like(weight)
        ...     optimizer.step()
        >>> weight.item()
        1.0078125
    """

    def __init__(self, make: Callable[[Any], torch.optim.Optimizer], groups: Iterable[Any]) -> None:
        groups = [group if isinstance(group, dict) else {"params": [group]} for group in groups]
        counts = [len(group["params"]) for group in groups]
        self.masters = Float32Copies(weight for group in groups for weight in group["params"])
        copies = iter(self.masters.copies)
        self.inner = make(
            [
                {**group, "params": [next(copies) for _ in range(count)]}
                for group, count in zip(groups, counts, strict=True)
            ]
        )
        weights = iter(self.masters.tensors)
        super().__init__(
            [
                {**group, "params": [next(weights) for _ in group["params"]]}
                for group in self.inner.param_groups
            ],
            self.inner.defaults,
        )
        # seen by strategies, which move it to another device; its keys are the copies
        self.state = self.inner.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of the inner optimizer on the copies."""
        self._set_inner_options()
        self.masters.refresh()

        def evaluate() -> Any:
            # an optimizer that evaluates several times (L-BFGS) has moved the copies
            self.masters.write()
            with torch.enable_grad():
                loss = closure() if closure is not None else None
            self._copy_gradients()
            return loss

        try:
            if closure is not None:
                return self.inner.step(evaluate)
            self._copy_gradients()
            self.inner.step()
        finally:
            self.masters.write()
            self._drop_gradients()

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """State of the inner optimizer, with each copy as `master` beside its moments."""
        self._set_inner_options()
        state = self.inner.state_dict()
        for index, copy in enumerate(self.masters.state()):
            if copy is not None:
                state["state"][index] = {**state["state"].get(index, {}), "master": copy}
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Load a `state_dict`; one without copies, of an earlier version, leaves them."""
        entries = {
            index: {name: value for name, value in entry.items() if name != "master"}
            for index, entry in state_dict["state"].items()
        }
        self.inner.load_state_dict(
            {**state_dict, "state": {index: entry for index, entry in entries.items() if entry}}
        )
        self.state = self.inner.state
        for group, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            group.update({name: value for name, value in inner.items() if name != "params"})
        self.masters.load(
            [
                state_dict["state"].get(index, {}).get("master")
                for index in range(len(self.masters.copies))
            ]
        )

    def _set_inner_options(self) -> None:
        """Hand the options of the parameter groups (learning rates) to the inner optimizer."""
        for group, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            inner.update({name: value for name, value in group.items() if name != "params"})

    def _copy_gradients(self) -> None:
        for weight, copy in self.masters.pairs():
            if copy is not weight:
                copy.grad = None if weight.grad is None else weight.grad.float()

    def _drop_gradients(self) -> None:
        for weight, copy in self.masters.pairs():
            if copy is not weight:
                copy.grad = None


def with_masters(
    make: Callable[[Any], torch.optim.Optimizer], groups: Iterable[Any]
) -> torch.optim.Optimizer:
    """Optimizer of `make`, with master weights where a parameter is in half precision.

    Args:
        make: factory of the optimizer.
        groups: parameter groups, or parameters.
    """
    groups = list(groups)
    weights = [
        weight
        for group in groups
        for weight in (group["params"] if isinstance(group, dict) else [group])
    ]
    if any(weight.dtype in HALF for weight in weights):
        return MasterWeights(make, groups)
    return make(groups)
