"""Suite that compares the confidence on forgotten and on unseen samples."""

from typing import ClassVar

from callbacks import Evaluated, Suite
from mu.core import UnlearningModule
from mu.metrics import Result


class ConfidenceGap(Suite):
    """Mean probability of the true class on forget minus the same on test."""

    needs = ("nll",)
    definitions: ClassVar = {
        "confidence_gap": "Mean probability of the true class on the forget set minus that on "
        "held-out samples, in percentage points; the oracle's value is the goal.",
    }
    headline = ("confidence_gap",)

    def measure(self, outputs: Evaluated, module: UnlearningModule) -> list[Result]:
        """One number; None as direction says that closeness to the oracle counts."""
        forget, test = (
            100 * self.rows(outputs, split)["nll"].neg().exp().mean()
            for split in ("forget", "test")
        )
        return [Result("confidence_gap", float(forget - test), None, "forget", "pp")]
