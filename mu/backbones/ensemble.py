"""Ensemble of classifiers as one backbone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mu.backbones.base import Backbone, WeightedSum
from mu.data.batch import Batch
from mu.utils.errors import InputError


class Ensemble(Backbone):
    """Ensemble of classifiers by the mean of their probabilities.

    It is the mean-softmax vote of SISA (Bourtoule et al., S&P 2021). Its prediction is the
    logarithm of the mean probability, which is a valid logit, so every suite and attack works on
    it.

    Args:
        members: the classifiers; all have the same classes.
    """

    def __init__(self, members: list[Backbone]) -> None:
        super().__init__()
        if not members:
            raise InputError("an ensemble needs at least one member.")
        self.members = nn.ModuleList(members)

    @property
    def _first(self) -> Backbone:
        return self.members[0]  # type: ignore[return-value]

    def predict(self, batch: Batch) -> Tensor:
        """Log of the mean probability, `[B, K]`."""
        log_probabilities = torch.stack(
            [
                member.predict(batch).log_softmax(1)  # type: ignore[operator]
                for member in self.members
            ]
        )
        return log_probabilities.logsumexp(0) - torch.log(
            torch.tensor(float(len(self.members)), device=log_probabilities.device)
        )

    def loss(self, batch: Batch, prediction: Tensor | None = None) -> WeightedSum:
        """Loss of the members on the ensemble's prediction."""
        return self._first.loss(batch, self.predict(batch) if prediction is None else prediction)

    def divergence(
        self, student: Tensor, teacher: Tensor, batch: Batch, temperature: float = 1.0
    ) -> WeightedSum:
        """Divergence of the members on the ensemble's predictions."""
        return self._first.divergence(student, teacher, batch, temperature)

    def substitute_loss(
        self, batch: Batch, target: Tensor | None = None, prediction: Tensor | None = None
    ) -> WeightedSum:
        """Substitute loss of the members on the ensemble's prediction."""
        return self._first.substitute_loss(
            batch, target, self.predict(batch) if prediction is None else prediction
        )

    def outputs(
        self, batch: Batch, names: Iterable[str], prediction: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Outputs of the members on the ensemble's prediction."""
        return self._first.outputs(
            batch, names, self.predict(batch) if prediction is None else prediction
        )

    def scores(self, batch: Batch, prediction: Tensor | None = None) -> dict[str, Tensor]:
        """Scores of the members on the ensemble's prediction."""
        return self._first.scores(batch, self.predict(batch) if prediction is None else prediction)
