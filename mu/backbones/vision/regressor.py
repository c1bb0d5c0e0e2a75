"""Regressors of a real target."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mu import functional
from mu.backbones.base import Backbone, WeightedSum, select_outputs
from mu.backbones.vision.task_checks import probe_prediction
from mu.data.batch import Batch
from mu.functional.checks import at_least_float32


class Regressor(Backbone):
    """Regressor: a multilayer perceptron with one output, or a live network.

    Args:
        in_features: number of inputs F.
        hidden: widths of the hidden layers.
        weights: safetensors file, state dict, checkpoint or run folder; None starts from new
            weights.
        criterion: `absolute` (L1, as in Tarun et al. 2023) or `squared` error.
        offset: mean of the training targets, added to the network's output.
        scale: standard deviation of the training targets, which multiplies the network's output.
        init_seed: seed of new weights; None uses torch's global generator.
        network: a live network that maps `input` to `[B]` or `[B, 1]`; replaces the perceptron.
    """

    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        in_features: int = 10,
        hidden: list[int] | None = None,
        weights: str | None = None,
        criterion: Literal["absolute", "squared"] = "absolute",
        offset: float = 0.0,
        scale: float = 1.0,
        init_seed: int | None = None,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.network = (
            network
            if network is not None
            else _perceptron(in_features, [64, 64] if hidden is None else hidden, init_seed)
        )
        self.register_buffer("offset", torch.tensor(float(offset)))
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.weights_metadata: dict[str, str] = {}
        if weights is not None:
            from mu.utils.weights import assign_weights, load_weights

            tensors, self.weights_metadata = load_weights(weights)
            assign_weights(self.network, tensors, weights)

    def check_task(self, task: Any) -> None:
        """Check the number of inputs and of outputs on the task's samples."""
        probe_prediction(self, task, "input")

    def predict(self, batch: Batch) -> Tensor:
        """Predicted targets `[B]`."""
        raw = at_least_float32(self.network(self.as_input(batch["input"])))
        return raw.reshape(len(raw)) * self.scale + self.offset

    def _error(self, prediction: Tensor, target: Tensor) -> Tensor:
        error = (
            functional.absolute_error if self.criterion == "absolute" else functional.squared_error
        )
        return error(prediction, target)

    def loss(self, batch: Batch, prediction: Tensor | None = None) -> WeightedSum:
        """Absolute or squared error, in the target's units."""
        prediction = self.predict(batch) if prediction is None else prediction
        return self.count(batch, self._error(prediction, batch["target"]))

    def divergence(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float = 1.0
    ) -> WeightedSum:
        """Criterion between two predictions; the temperature is not used."""
        return self.count(batch, self._error(student, teacher))

    def substitute_loss(
        self, batch: Batch, target: Tensor | None = None, prediction: Tensor | None = None
    ) -> WeightedSum:
        """Criterion towards the substitute target."""
        prediction = self.predict(batch) if prediction is None else prediction
        return self.count(
            batch, self._error(prediction, batch["substitute"] if target is None else target)
        )

    def outputs(
        self, batch: Batch, names: Iterable[str], prediction: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Outputs: `prediction` [B], `target` [B], `nll` [B] (the criterion)."""
        prediction = (self.predict(batch) if prediction is None else prediction).float()
        available = {
            "prediction": lambda: prediction,
            "target": lambda: batch["target"],
            "nll": lambda: self._error(prediction, batch["target"]),
        }
        return select_outputs(available, names, "a regressor")

    def scores(self, batch: Batch, prediction: Tensor | None = None) -> dict[str, Tensor]:
        """Scores: `loss`, the criterion in the target's units."""
        prediction = (self.predict(batch) if prediction is None else prediction).float()
        return {"loss": self._error(prediction, batch["target"])}


def _perceptron(in_features: int, hidden: list[int], init_seed: int | None) -> nn.Module:
    widths = [in_features, *hidden]

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    if init_seed is None:
        return make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed)
        return make()
