"""Digits task: scikit-learn's handwritten digits, without a download."""

from __future__ import annotations

from typing import Any

from tasks.base import ImageTask
from tasks.readers import digits_source
from tasks.selectors import Selector
from tasks.tensor_data import Source


class Digits(ImageTask):
    """Handwritten digits: 8x8 grey scans in ten classes, few enough that a network memorises them.

    Parts of the split as in SourceTask. Not augmented by default.

    Args:
        selector: chooses the forget set.
        train_size: training scans, drawn with the share of each class preserved.
        validation_size: scans held out for searches; the other scans are the test set.
        batch_size: global batch size in fit.
        **kwargs: see ImageTask.

    Example: `Digits(ByClass(3))` forgets the digit 3; `Digits(RandomFraction(0.1))` a random tenth.
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
        """Read the scans, drawn by the split seed."""
        return digits_source(self.train_size, self.split_seed, self.validation_size)
