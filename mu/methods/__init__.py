"""Methods: one paper, one small file."""

from mu.methods.finetune import FineTune
from mu.methods.random_label import RandomLabel
from mu.methods.retrain import Retrain
from mu.methods.salun import SalUn
from mu.methods.ssd import SSD
from mu.methods.train import Train

__all__ = ["SSD", "FineTune", "RandomLabel", "Retrain", "SalUn", "Train"]
