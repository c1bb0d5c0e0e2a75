"""Methods: one paper, one small file."""

from mu.methods.adv_unlearn import AdvUnlearn, CoupledSampling
from mu.methods.bad_teacher import BadTeacher
from mu.methods.blindspot import Blindspot
from mu.methods.boundary_expand import BoundaryExpand
from mu.methods.boundary_shrink import BoundaryShrink
from mu.methods.cf_k import CFk
from mu.methods.concept_ablation import ConceptAblation
from mu.methods.delete import DELETE
from mu.methods.erase_diff import EraseDiff
from mu.methods.esd import ESD
from mu.methods.eu_k import EUk
from mu.methods.finetune import FineTune
from mu.methods.fisher_forgetting import FisherForgetting
from mu.methods.gaussian_amnesiac import GaussianAmnesiac
from mu.methods.gradient_ascent import GradientAscent
from mu.methods.influence import Influence
from mu.methods.l1_sparse import L1Sparse
from mu.methods.neggrad_plus import NegGradPlus
from mu.methods.prune import Pruned, PruneFineTune
from mu.methods.random_label import RandomLabel
from mu.methods.retrain import Retrain
from mu.methods.salun import SalUn
from mu.methods.salun_diffusion import GuidedSaliency, SalUnDiffusion
from mu.methods.salun_soft import SalUnSoft
from mu.methods.scrub import SCRUB, SCRUBRewind
from mu.methods.selective_amnesia import SelectiveAmnesia
from mu.methods.sfd import SFD
from mu.methods.ssd import SSD
from mu.methods.train import Train
from mu.methods.uce import UCE
from mu.methods.unsir import UNSIR

__all__ = [
    "DELETE", "ESD", "SCRUB", "SFD", "SSD", "UCE", "UNSIR", "AdvUnlearn", "BadTeacher", "Blindspot", "BoundaryExpand", "BoundaryShrink",
    "CFk", "ConceptAblation", "CoupledSampling", "EUk", "EraseDiff", "FineTune", "FisherForgetting", "GaussianAmnesiac", "GradientAscent",
    "GuidedSaliency", "Influence", "L1Sparse", "NegGradPlus", "PruneFineTune", "Pruned", "RandomLabel", "Retrain", "SCRUBRewind", "SalUn",
    "SalUnDiffusion", "SalUnSoft", "SelectiveAmnesia", "Train",
]
