"""Diabetes task: regression on scikit-learn's data, without a download."""

from __future__ import annotations

from typing import Any

from tasks.base import SourceTask
from tasks.readers import diabetes_source
from tasks.selectors import Selector
from tasks.tensor_data import Source


class Diabetes(SourceTask):
    """Diabetes regression: ten measurements, disease progression after a year (25 to 346).

    Parts of the split as in SourceTask.

    Args:
        selector: chooses the forget set, for example `ValueRange(low, high)` of the target.
        train_size: training patients.
        validation_size: patients held out for searches; the other patients are the test set.
        batch_size: global batch size in fit.
        **kwargs: see SourceTask.

    Example: `Diabetes(ValueRange(200, 400))` forgets patients with a target of 200 or more.
    """

    provides = frozenset({"labels", "targets"})

    def __init__(
        self,
        selector: Selector,
        train_size: int = 300,
        validation_size: int = 50,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(selector, batch_size=batch_size, **kwargs)
        self.train_size = train_size
        self.validation_size = validation_size

    def source(self) -> Source:
        """Read the data, drawn by the split seed and standardised on the training patients."""
        return diabetes_source(self.train_size, self.split_seed, self.validation_size)
