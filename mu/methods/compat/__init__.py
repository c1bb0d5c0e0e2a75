"""Variants that reproduce quirks of released code where a quirk moves a published number."""

from mu.methods.compat.adv_unlearn_reference import InTurn, PrefixByWords, SoftPromptAttackReference
from mu.methods.compat.boundary_expand_reference import BoundaryExpandReference
from mu.methods.compat.boundary_shrink_reference import BoundaryShrinkReference
from mu.methods.compat.erase_diff_reference import EraseDiffReference
from mu.methods.compat.esd_from import ESDFrom
from mu.methods.compat.fisher_forgetting_reference import FisherForgettingReference
from mu.methods.compat.influence_reference import InfluenceReference
from mu.methods.compat.pdu_reference import PDUReference
from mu.methods.compat.pulled import FineTunePulled, NegGradPlusPulled
from mu.methods.compat.scrub_worst_case import SCRUBWorstCase
from mu.methods.compat.undial_reference import UNDIALReference

__all__ = [
    "BoundaryExpandReference",
    "BoundaryShrinkReference",
    "ESDFrom",
    "EraseDiffReference",
    "FineTunePulled",
    "FisherForgettingReference",
    "InTurn",
    "InfluenceReference",
    "NegGradPlusPulled",
    "PDUReference",
    "PrefixByWords",
    "SCRUBWorstCase",
    "SoftPromptAttackReference",
    "UNDIALReference",
]
