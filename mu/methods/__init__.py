"""Methods: one paper, one small file."""

from mu.methods.adv_unlearn import AdvUnlearn, CoupledSampling
from mu.methods.alt_po import AltPO
from mu.methods.bad_teacher import BadTeacher
from mu.methods.blindspot import Blindspot
from mu.methods.boundary_expand import BoundaryExpand
from mu.methods.boundary_shrink import BoundaryShrink
from mu.methods.ce_u import CEU
from mu.methods.cf_k import CFk
from mu.methods.concept_ablation import ConceptAblation
from mu.methods.delete import DELETE
from mu.methods.dpo import DPO, IdkDPO
from mu.methods.erase_diff import EraseDiff
from mu.methods.esd import ESD
from mu.methods.eu_k import EUk
from mu.methods.finetune import FineTune
from mu.methods.fisher_forgetting import FisherForgetting
from mu.methods.gaussian_amnesiac import GaussianAmnesiac
from mu.methods.grad_diff import GradDiff
from mu.methods.gradient_ascent import GradientAscent
from mu.methods.idk_nll import IdkNLL, IdkNLLSeparate
from mu.methods.influence import Influence
from mu.methods.kl_min import KLMin
from mu.methods.l1_sparse import L1Sparse
from mu.methods.neggrad_plus import NegGradPlus
from mu.methods.npo import NPO
from mu.methods.pdu import PDU
from mu.methods.prune import Pruned, PruneFineTune
from mu.methods.random_label import RandomLabel
from mu.methods.retrain import Retrain
from mu.methods.rmu import RMU
from mu.methods.salun import SalUn
from mu.methods.salun_diffusion import GuidedSaliency, SalUnDiffusion
from mu.methods.salun_soft import SalUnSoft
from mu.methods.sat_imp import SatImp
from mu.methods.scrub import SCRUB, SCRUBRewind
from mu.methods.selective_amnesia import SelectiveAmnesia
from mu.methods.sfd import SFD
from mu.methods.simnpo import SimNPO
from mu.methods.ssd import SSD
from mu.methods.task_vector import TaskVector
from mu.methods.train import Train
from mu.methods.uce import UCE
from mu.methods.uld import ULD
from mu.methods.undial import UNDIAL
from mu.methods.unsir import UNSIR
from mu.methods.wga import WGA
from mu.methods.whp import WHP, WHPInference

__all__ = [
    "CEU",
    "DELETE",
    "DPO",
    "ESD",
    "NPO",
    "PDU",
    "RMU",
    "SCRUB",
    "SFD",
    "SSD",
    "UCE",
    "ULD",
    "UNDIAL",
    "UNSIR",
    "WGA",
    "WHP",
    "AdvUnlearn",
    "AltPO",
    "BadTeacher",
    "Blindspot",
    "BoundaryExpand",
    "BoundaryShrink",
    "CFk",
    "ConceptAblation",
    "CoupledSampling",
    "EUk",
    "EraseDiff",
    "FineTune",
    "FisherForgetting",
    "GaussianAmnesiac",
    "GradDiff",
    "GradientAscent",
    "GuidedSaliency",
    "IdkDPO",
    "IdkNLL",
    "IdkNLLSeparate",
    "Influence",
    "KLMin",
    "L1Sparse",
    "NegGradPlus",
    "PruneFineTune",
    "Pruned",
    "RandomLabel",
    "Retrain",
    "SCRUBRewind",
    "SalUn",
    "SalUnDiffusion",
    "SalUnSoft",
    "SatImp",
    "SelectiveAmnesia",
    "SimNPO",
    "TaskVector",
    "Train",
    "WHPInference",
]
