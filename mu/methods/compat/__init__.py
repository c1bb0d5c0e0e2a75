"""Variants that reproduce quirks of released code where a quirk moves a published number."""

from mu.methods.compat.pulled import FineTunePulled, NegGradPlusPulled
from mu.methods.compat.scrub_worst_case import SCRUBWorstCase

__all__ = ["FineTunePulled", "NegGradPlusPulled", "SCRUBWorstCase"]
