"""scikit-learn's handwritten digits: real scans, no download."""

from __future__ import annotations

from typing import Any

from tasks.base import ImageTask
from tasks.readers import digits_source
from tasks.selectors import Selector
from tasks.tensor_data import Source


class Digits(ImageTask):
    """8x8 grey scans of handwritten digits, few enough to train on that a network remembers them;
    usually not augmented.

    Args:
        selector: what is to be forgotten.
        train_size: scans trained on, drawn with the share of every class kept; the rest is for
            validation and test.
        validation_size: scans held out for searches.
        **kwargs: see ImageTask.
    """

    def __init__(
        self,
        selector: Selector,
        train_size: int = 500,
        validation_size: int = 200,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(selector, batch_size=batch_size, **kwargs)
        self.train_size = train_size
        self.validation_size = validation_size

    def source(self) -> Source:
        """Drawn by the split seed."""
        return digits_source(self.train_size, self.split_seed, self.validation_size)
