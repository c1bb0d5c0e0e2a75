"""Base class of backbones: models with the operations of their domain."""

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
    """Base of backbones: a model with its domain's loss, divergence, substitute loss and scores.

    Methods that use only these operations run on every domain. A batch is a dict of tensors whose
    first dimension is the sample; rows marked in `padded` have weight 0. Operations that need a
    prediction accept one that was already computed, so that a method runs one forward pass.
    """

    def prepare(self, batch: Batch, seed: int) -> dict[str, Any]:
        """Batch with keyed draws and encodings, without gradient; the batch itself by default."""
        return dict(batch)

    @abstractmethod
    def predict(self, batch: Batch) -> Tensor:
        """Prediction of the model, first dimension B."""

    @abstractmethod
    def loss(self, batch: Batch, prediction: Tensor | None = None) -> WeightedSum:
        """Training loss of the model."""

    @abstractmethod
    def divergence(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float = 1.0
    ) -> WeightedSum:
        """Divergence of the prediction `student` from the prediction `teacher`, 0 when equal."""

    @abstractmethod
    def substitute_loss(
        self, batch: Batch, target: Tensor | None = None, prediction: Tensor | None = None
    ) -> WeightedSum:
        """Loss towards the substitute target: `target`, or the batch's `substitute`."""

    @abstractmethod
    def outputs(
        self, batch: Batch, names: Iterable[str], prediction: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Outputs by example for suites, of the given names, computed in one pass.

        Raises:
            InputError: for a name that this domain does not have.
        """

    @abstractmethod
    def scores(self, batch: Batch, prediction: Tensor | None = None) -> dict[str, Tensor]:
        """Scores of each example, `[B]`, for curves during fit (loss, accuracy)."""

    def nll(self, batch: Batch, prediction: Tensor | None = None) -> Tensor:
        """Negative log-likelihood (or surrogate) of each example, `[B]`, for likelihood ratios."""
        return self.loss(batch, prediction)[0]

    def shard(self, mesh: Any) -> None:
        """Shard the weights over the ranks of a device mesh (FSDP2), in place.

        Raises:
            InputError: when the domain has no sharding.
        """
        raise InputError(
            f"{type(self).__name__} does not say how its weights are sharded; take the strategy "
            "ddp."
        )

    def check_task(self, task: Any) -> None:
        """Check that the model can read the samples of a task; no check by default.

        Raises:
            InputError: when task and model do not fit.
        """

    def fresh(self, seed: int) -> Self:
        """New model of the same architecture, initialised from `seed`, on the same device.

        The new model is in the mode of this one.

        Raises:
            InputError: when a layer of a network that was passed live cannot reset itself.
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
        """Weighted sum `(values, weight)` with zeros in padded rows; the default weight is 1."""
        weight = torch.ones_like(values) if weight is None else weight
        padded = batch.get("padded")
        if padded is None:
            return values, weight
        real = (~padded).to(values.dtype)
        return values * real, weight * real


def _reset(network: Any) -> Any:
    """Re-initialise every layer of a module, at any depth."""
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
    """Outputs of the given names; InputError for an unknown name."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(
            f"{domain} does not give {unknown[0]!r}; it gives {', '.join(sorted(known))}. Choose "
            "a suite for this domain."
        )
    return {name: known[name]() for name in names}
