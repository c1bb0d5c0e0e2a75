"""Backbone for tables: a classifier that reads the field `input`."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mu import functional
from mu.backbones import Backbone, WeightedSum
from mu.data import Batch


class TableClassifier(Backbone):
    """A perceptron with one hidden layer.

    Args:
        in_features: columns of the table.
        num_classes: number of classes.
        hidden: width of the hidden layer.
        weights: run folder or file with the weights; None starts from new ones.
        init_seed: seed of new weights.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden: int = 32,
        weights: str | None = None,
        init_seed: int | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        with torch.random.fork_rng(devices=[], enabled=init_seed is not None):
            torch.manual_seed(init_seed or 0)
            self.network = nn.Sequential(
                nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
            )
        if weights is not None:
            self.load(weights)

    def load(self, weights: str) -> None:
        """Weights and the hash of the recipe that they were trained by."""
        from mu.utils.weights import assign_weights, load_weights

        tensors, self.weights_metadata = load_weights(weights)
        assign_weights(self.network, tensors, weights)

    def predict(self, batch: Batch) -> Tensor:
        """Logits `[B, K]`."""
        return self.network(batch["input"])

    def loss(self, batch: Batch, prediction: Tensor | None = None) -> WeightedSum:
        """Cross-entropy to `label`."""
        return self._towards(batch["label"], batch, prediction)

    def substitute_loss(
        self, batch: Batch, target: Tensor | None = None, prediction: Tensor | None = None
    ) -> WeightedSum:
        """Cross-entropy to the substitute label."""
        return self._towards(batch["substitute"] if target is None else target, batch, prediction)

    def _towards(self, label: Tensor, batch: Batch, prediction: Tensor | None) -> WeightedSum:
        logits = self.predict(batch) if prediction is None else prediction
        return self.count(batch, functional.cross_entropy(logits, label))

    def divergence(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float = 1.0
    ) -> WeightedSum:
        """KL divergence of the student from the teacher."""
        return self.count(batch, functional.kl_divergence(student, teacher, temperature))

    def outputs(
        self, batch: Batch, names: Iterable[str], prediction: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What suites may ask for: `logits`, `label`, `nll`."""
        logits = self.predict(batch) if prediction is None else prediction
        values = {
            "logits": logits,
            "label": batch["label"],
            "nll": functional.cross_entropy(logits, batch["label"]),
        }
        return {name: values[name] for name in names}

    def scores(self, batch: Batch, prediction: Tensor | None = None) -> dict[str, Tensor]:
        """Accuracy of each example, for curves during fit."""
        logits = self.predict(batch) if prediction is None else prediction
        return {"accuracy": (logits.argmax(1) == batch["label"]).float()}
