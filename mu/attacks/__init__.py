"""Attacks: `attack(backbone, batch, criterion) -> AttackResult`, the same objects while testing and while training."""

from mu.attacks.base import Attack, AttackResult, Criterion, Misclassified, Targeted
from mu.attacks.fgsm import FGSM, PGD

__all__ = ["FGSM", "PGD", "Attack", "AttackResult", "Criterion", "Misclassified", "Targeted"]
