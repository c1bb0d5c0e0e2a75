"""scikit-learn's diabetes data: regression, no download."""

from __future__ import annotations

from typing import Any

from tasks.base import SourceTask
from tasks.readers import diabetes_source
from tasks.selectors import Selector
from tasks.tensor_data import Source


class Diabetes(SourceTask):
    """Ten measurements of a patient, and the disease's progression after a year (25 to 346).

    Args:
        selector: what is to be forgotten, for example `ValueRange(low, high)` of the target.
        train_size: patients trained on.
        validation_size: patients held out for searches.
        **kwargs: see SourceTask.
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
        """Drawn by the split seed, standardised on the training patients."""
        return diabetes_source(self.train_size, self.split_seed, self.validation_size)
