"""Methods: one paper, one small file."""

from mu.methods.cf_k import CFk
from mu.methods.eu_k import EUk
from mu.methods.finetune import FineTune
from mu.methods.gradient_ascent import GradientAscent
from mu.methods.l1_sparse import L1Sparse
from mu.methods.neggrad_plus import NegGradPlus
from mu.methods.prune import Pruned, PruneFineTune
from mu.methods.random_label import RandomLabel
from mu.methods.retrain import Retrain
from mu.methods.salun import SalUn
from mu.methods.salun_soft import SalUnSoft
from mu.methods.scrub import SCRUB, SCRUBRewind
from mu.methods.ssd import SSD
from mu.methods.train import Train

__all__ = [
    "SCRUB", "SSD", "CFk", "EUk", "FineTune", "GradientAscent", "L1Sparse", "NegGradPlus", "PruneFineTune", "Pruned", "RandomLabel",
    "Retrain", "SCRUBRewind", "SalUn", "SalUnSoft", "Train",
]
