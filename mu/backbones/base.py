"""Base class of backbones: models with the operations of their domain."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn

from mu.backbones.lora import base_name
from mu.data.batch import Batch
from mu.utils.errors import InputError
from mu.utils.spec import Reconstructible, init_args_of
from mu.utils.weights import weights_hash

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

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Raise InputError, because a backbone is used by its operations and not called."""
        raise InputError(
            f"a {type(self).__name__} is not called; backbone.predict(batch) gives the prediction "
            "for a batch, backbone.loss(batch) its losses."
        )

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

    def mark_base(self, prefix: str = "") -> None:
        """Remember the present weights as those of the named base model.

        A backbone calls it in its constructor, after it has read the model, and before it loads
        other weights over it.

        Args:
            prefix: of the names of the weights that come from the base; adapters never do.
        """
        self._base_versions = {
            name: _identity(weight)
            for name, weight in self.named_parameters()
            if ".lora_" not in name and name.startswith(prefix)
        }

    def base_weights(self) -> dict[str, nn.Parameter]:
        """Weights by name that still are those of the named base model.

        A checkpoint leaves them out where they are not trained, because anyone who has the base
        model has them. Without a base there are none. Weights changed in place are not among them,
        and those of a copy are not, because a copy may have been changed before it was made.
        """
        versions = getattr(self, "_base_versions", {})
        weights = {
            name: weight
            for name, weight in self.named_parameters()
            if versions.get(name) == _identity(weight)
        }
        for child, module in self.named_children():
            if isinstance(module, Backbone):
                weights |= {f"{child}.{name}": w for name, w in module.base_weights().items()}
        return weights

    def check_task(self, task: Any) -> None:
        """Check that the model can read the samples of a task; no check by default.

        Raises:
            InputError: when task and model do not fit.
        """

    def as_input(self, values: Tensor) -> Tensor:
        """Values in the dtype of the weights, for a network in half precision.

        The trainer casts the batches of its own steps alone.
        """
        return values.to(next(self.parameters()).dtype)

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


def _identity(weight: Tensor) -> tuple[int, int, int]:
    """What changes with a tensor's values: the object, its count of changes, or its storage."""
    return id(weight), weight._version, weight.data_ptr()


def named_hash(backbone: nn.Module, names: Iterable[str]) -> str:
    """Hash of some weights of a backbone, the same with and without adapters around their layers.

    Args:
        backbone: a backbone of any domain.
        names: names of weights in its `state_dict`; a layer with an adapter may lack its
            `base_layer`.
    """
    names = {base_name(name) for name in names}
    state = {base_name(name): value for name, value in backbone.state_dict().items()}
    return weights_hash({name: state[name] for name in names if name in state})


def check_base(
    backbone: Any, missing: Iterable[str], metadata: Mapping[str, Any], source: object
) -> None:
    """Check that a backbone holds the base weights that a run's checkpoint has left out.

    Args:
        backbone: a backbone with its base model's weights.
        missing: names of its weights that the checkpoint does not hold.
        metadata: of the checkpoint; `base` is the hash of what it left out.
        source: its path, for the message.

    Raises:
        InputError: the hashes differ.
    """
    stored = metadata.get("base")
    present = named_hash(backbone, missing) if stored else stored
    if present != stored:
        raise InputError(
            f"{source} holds trained weights alone, on a base model of hash {stored}, but that of "
            f"the backbone has {present}; give the backbone the model that the run began from."
        )


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
