"""Backbone: the model and its domain's meaning of loss, prediction, divergence and substitute."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn

from mu.data.batch import Batch
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible, init_args_of

WeightedSum = tuple[Tensor, Tensor]
"""`(sum [B], weight [B])`: what each sample adds to a loss, and how much it weighs in the mean
(labelled tokens; 1 elsewhere).
"""


class Backbone(nn.Module, Reconstructible, ABC):
    """A model with its domain's operations. Methods that use only these run on every domain from
    one file.

    A batch is a dict of tensors whose first dimension is the sample; rows marked in `padded` count
    for nothing. Every operation that needs a prediction takes one that was already computed, so
    that a method pays for one forward pass.
    """

    def prepare(self, batch: Batch, seed: int) -> dict[str, Any]:
        """Draw and encode, without gradient, from (seed, index, visit). Nothing by default."""
        return dict(batch)

    @abstractmethod
    def predict(self, batch: Batch) -> Tensor:
        """The model's prediction, first dimension B."""

    @abstractmethod
    def loss(self, batch: Batch, prediction: Tensor | None = None) -> WeightedSum:
        """The loss that the model was trained with."""

    @abstractmethod
    def divergence(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float = 1.0
    ) -> WeightedSum:
        """How far the prediction `student` is from the prediction `teacher` (0 when equal)."""

    @abstractmethod
    def substitute_loss(
        self, batch: Batch, target: Tensor | None = None, prediction: Tensor | None = None
    ) -> WeightedSum:
        """Loss towards what the model should say instead: `target`, or the batch's `substitute`."""

    @abstractmethod
    def outputs(
        self, batch: Batch, names: Iterable[str], prediction: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Per-example values for suites, computed in one pass: every name in `names` that the
        domain knows.

        Raises:
            InputError: for a name that this domain does not have.
        """

    @abstractmethod
    def scores(self, batch: Batch, prediction: Tensor | None = None) -> dict[str, Tensor]:
        """A few numbers for each example, `[B]`, for curves during fit (loss, accuracy)."""

    def nll(self, batch: Batch, prediction: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of each example, `[B]` (or the domain's surrogate), for
        likelihood ratios.
        """
        return self.loss(batch, prediction)[0]

    def shard(self, mesh: Any) -> None:
        """Divide the weights among the ranks of a device mesh (FSDP2), in place.

        Raises:
            InputError: when the domain does not say how.
        """
        raise InputError(
            f"{type(self).__name__} does not say how its weights are sharded; take the strategy "
            "ddp."
        )

    def check_task(self, task: Any) -> None:
        """Refuse a task whose samples this model cannot read. Nothing by default.

        Raises:
            InputError: names what does not fit.
        """

    def fresh(self, seed: int) -> Self:
        """The same architecture, newly initialised from `seed`, on the same device and in the same
        mode.

        Raises:
            InputError: when the network was handed over live and a layer of it cannot reset itself.
        """
        arguments = init_args_of(self)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if any(isinstance(value, nn.Module) for value in arguments.values()):
                twin = _reset(deepcopy(self))
            else:
                dropped = {
                    name: None
                    for name in ("weights", "pretrained", "init_seed")
                    if name in arguments
                }
                twin = type(self)(**{**arguments, **dropped})
        first = next(self.parameters())
        return (
            twin.to(device=first.device, dtype=first.dtype)
            .train(self.training)
            .requires_grad_(True)
        )

    @staticmethod
    def count(batch: Batch, values: Tensor, weight: Tensor | None = None) -> WeightedSum:
        """`(values, weight)` with padded rows set to zero; the weight is 1 where none is given."""
        weight = torch.ones_like(values) if weight is None else weight
        padded = batch.get("padded")
        if padded is None:
            return values, weight
        real = (~padded).to(values.dtype)
        return values * real, weight * real


def _reset(network: Any) -> Any:
    """Re-initialise every layer, however deep it stands."""
    for name, layer in network.named_modules():
        if not any(True for _ in layer.parameters(recurse=False)):
            continue
        reset = getattr(layer, "reset_parameters", None)
        if reset is None:
            raise InputError(
                f"layer {name!r} ({type(layer).__name__}) has weights but no reset_parameters(), "
                "so the network cannot be initialised anew; build the backbone from a name "
                "instead of a live network."
            )
        reset()
    return network


def select_outputs(known: dict[str, Any], names: Iterable[str], domain: str) -> dict[str, Tensor]:
    """The named values; an unknown name is an error, because a suite would wait for it in vain."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(
            f"{domain} does not give {unknown[0]!r}; it gives {', '.join(sorted(known))}. Choose "
            "a suite for this domain."
        )
    return {name: known[name]() for name in names}
